"""The tables of a training step under each strategy, and the sentences that say what is in them."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from revbench import paper
from revbench.case import Case
from revbench.report.chains import is_chain
from revbench.report.document import MISSING, Paragraph, Table
from revbench.report.evidence import Evidence, Statistic, paired
from revbench.report.operations import operations_cell, operations_ratio, uncounted_note
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_bytes, human_degrees, human_seconds, human_share


def has_its_own_table(case: Case) -> bool:
    """Chains of blocks, and what runs under a memory limit."""
    return is_chain(case) or case.memory_limit_bytes > 0


def findings(evidence: Evidence) -> list[Paragraph]:
    """One sentence for each RevNet: what reconstruction saved, cost and did to the gradient."""
    found = []
    for case in evidence.cases("memory", "time"):
        if case.strategy != "reconstructed" or case.nonreversible != "kept" or has_its_own_table(case):
            continue
        twin = case.stored()
        parts = []
        ours, theirs = (evidence.value(c, "memory", "activation_peak_bytes") for c in (case, twin))
        if ours and theirs and ours.median:
            parts.append(
                f"needs {human_bytes(ours.median)} above the steady state at its peak where stored needs"
                f" {human_bytes(theirs.median)} ({theirs.median / ours.median:.1f} × less)"
            )
        if (time := evidence.ratio(case, twin, "time", "step_seconds")) is not None:
            parts.append(f"takes {time:.2f} × the time of a step")
        if (flops := operations_ratio(evidence, case, twin)) is not None:
            parts.append(f"{flops:.2f} × the floating-point operations")
        angles = evidence.samples(case, "drift", "angle_degrees")
        stored = evidence.samples(case, "drift", "stored_angle_degrees") or evidence.samples(
            twin, "drift", "angle_degrees"
        )
        if angles and stored:
            parts.append(
                f"its {case.dtype} gradient is {human_degrees(statistics.median(angles))} from the float64 one"
                f" (stored: {human_degrees(statistics.median(stored))})"
            )
        if seen := evidence.samples(case, "drift", "error_over_noise"):
            parts.append(
                f"that is at most {human_share(max(seen))} of what one batch's gradient differs from another's"
            )
        if rounding := evidence.samples(case, "drift", "smooth_amplification"):
            parts.append(
                f"flipped ReLU units aside it has {statistics.median(rounding):.2f} × the rounding error of stored"
            )
        if parts:
            found.append(Paragraph(f"{title_of(case.model)} reconstructed ({circumstances(case)}) {'; '.join(parts)}."))
    return found


def time_table(evidence: Evidence) -> Table | None:
    """Seconds and operations of a step for each pair and strategy."""

    def cells(case: Case) -> list[str]:
        twin = case.stored()
        return [
            cell(evidence, case, "time", "step_seconds", human_seconds, spread=True),
            _times(evidence.ratio(case, twin, "time", "step_seconds")),
            *(
                cell(evidence, case, "time", f"{p}_seconds", human_seconds)
                for p in ("forward", "backward", "optimizer")
            ),
            operations_cell(evidence, case),
            _times(operations_ratio(evidence, case, twin)),
        ]

    columns = ("Step", "to stored", "Forward", "Backward", "Optimizer", "Operations", "to stored")
    notes = [
        _launches(evidence, "time"),
        f"Published for reconstruction: {paper.RECONSTRUCTION_FLOPS_RATIO} × the add-multiplies, and"
        f" {paper.RECONSTRUCTION_TIME_RATIO} × the time in the authors' own implementation (Gomez et al. 2017, section 3.2).",
    ]
    faults = [s.median for c in evidence.cases("time") if (s := evidence.value(c, "time", "minor_faults_per_step"))]
    if faults and evidence.cases("time")[0].device == "cpu":
        notes.append(
            f"Allocator: malloc {evidence.cases('time')[0].allocator}; at most {max(faults):,.0f} minor page faults a step."
        )
    bound = [c for c in evidence.cases("time") if (s := evidence.value(c, "time", "launch_bound")) and s.median]
    if bound:
        names = ", ".join(f"{title_of(c.model)} {strategy_of(c)}" for c in bound)
        notes.append(
            f"Launch-bound (a kernel ran in less than 80 % of the step, so the host is what is timed): {names}."
        )
    notes += uncounted_note(evidence, [c for c in evidence.cases("flops") if not has_its_own_table(c)])
    return _strategy_table(
        "Time and computation of a training step", columns, evidence, ("time", "flops"), cells, notes
    )


def memory_table(evidence: Evidence) -> Table | None:
    """Bytes by phase for each pair and strategy."""
    cuda = any(case.device != "cpu" for case in evidence.cases("memory"))

    def cells(case: Case) -> list[str]:
        less = evidence.ratio(case.stored(), case, "memory", "activation_peak_bytes")
        process = ("nvml_process_bytes", "reserved_peak_bytes") if cuda else ("rss_peak_bytes",)
        return [
            *(
                cell(evidence, case, "memory", f"{p}_peak_bytes", human_bytes)
                for p in ("forward", "backward", "optimizer")
            ),
            cell(evidence, case, "memory", "steady_bytes", human_bytes),
            cell(evidence, case, "memory", "activation_peak_bytes", human_bytes),
            _times(less),
            *(cell(evidence, case, "memory", name, human_bytes) for name in process),
        ]

    columns = ["Forward", "Backward", "Optimizer", "Steady", "Above steady", "Saving"]
    columns += ["NVML process", "Reserved"] if cuda else ["RSS"]
    notes = [
        "Peak of live tensors in each phase of a step. Steady: parameters, buffers, optimizer state and batch. Above steady:"
        " the highest peak less the steady state, so activations, gradients and temporaries. Saving: stored's figure above the"
        " steady state over this one's.",
        "RSS (on a GPU: NVML's figure for the process) is the high-water mark of a fresh worker, with interpreter and libraries.",
    ]
    return _strategy_table("Peak memory of a training step", columns, evidence, ("memory",), cells, notes)


def _strategy_table(
    title: str, columns: tuple[str, ...] | list[str], evidence: Evidence, probes: tuple[str, ...],
    cells: Callable[[Case], list[str]], notes: list[str],
) -> Table | None:  # fmt: skip
    cases = [case for case in evidence.cases(*probes) if not has_its_own_table(case)]
    if not cases:
        return None
    rows: list[list[str]] = []
    breaks = []
    common = []
    for group in paired(cases):
        breaks.append(len(rows))
        common.append(f"{' and '.join(dict.fromkeys(title_of(c.model) for c in group))}: {circumstances(group[0])}")
        for case in group:
            if rows and rows[-1][0] != title_of(case.model) and len(rows) not in breaks:
                breaks.append(len(rows))
            failure = evidence.failure(case, probes[0])
            found = cells(case)
            rows.append([title_of(case.model), strategy_of(case), *([failure, *found[1:]] if failure else found)])
    return Table(title, ("Network", "Strategy", *columns), rows, 2, [f"{'; '.join(common)}.", *notes], breaks[1:])


def cell(
    evidence: Evidence, case: Case, probe: str, metric: str, show: Callable[[float], str], *, spread: bool = False
) -> str:
    """A metric of a case as a person reads it, with its spread over launches if asked for."""
    found = evidence.value(case, probe, metric)
    if found is None:
        return MISSING
    return show(found.median) + (_spread(found, show) if spread and found.launches > 1 else "")


def _spread(found: Statistic, show: Callable[[float], str]) -> str:
    return f" ({show(found.low)} to {show(found.high)})"


def _times(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.2f} ×"


def _launches(evidence: Evidence, probe: str) -> str:
    counts = [len(evidence.launches(case, probe)) for case in evidence.cases(probe)]
    if max(counts, default=0) <= 1:
        return "Median over the steps of one launch a case: a ratio may differ by some percent from launch to launch."
    number = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return f"Median over {number} launches of each launch's median step (smallest to largest in brackets)."
