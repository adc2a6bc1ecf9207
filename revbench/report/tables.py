"""The report's tables, and the sentences that say what is in them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np

from revbench import paper
from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.report.chains import is_chain
from revbench.report.document import Paragraph, Table
from revbench.report.evidence import Evidence, Statistic, paired
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_bytes, human_degrees, human_flops, human_seconds

MISSING = "–"


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
        if (flops := evidence.ratio(case, twin, "flops", "step_flops")) is not None:
            parts.append(f"{flops:.2f} × the floating-point operations")
        angles, stored = (evidence.samples(c, "drift", "angle_degrees") for c in (case, twin))
        if angles and stored:
            parts.append(
                f"its {case.dtype} gradient is {human_degrees(statistics.median(angles))} from the float64 one"
                f" (stored: {human_degrees(statistics.median(stored))})"
            )
        if parts:
            found.append(Paragraph(f"{title_of(case.model)} reconstructed ({circumstances(case)}) {'; '.join(parts)}."))
    return found


def time_table(evidence: Evidence) -> Table | None:
    """Seconds and operations of a step for each pair and strategy."""

    def cells(case: Case) -> list[str]:
        twin = case.stored()
        return [
            _cell(evidence, case, "time", "step_seconds", human_seconds, spread=True),
            _times(evidence.ratio(case, twin, "time", "step_seconds")),
            *(
                _cell(evidence, case, "time", f"{p}_seconds", human_seconds)
                for p in ("forward", "backward", "optimizer")
            ),
            _cell(evidence, case, "flops", "step_flops", human_flops),
            _times(evidence.ratio(case, twin, "flops", "step_flops")),
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
                _cell(evidence, case, "memory", f"{p}_peak_bytes", human_bytes)
                for p in ("forward", "backward", "optimizer")
            ),
            _cell(evidence, case, "memory", "steady_bytes", human_bytes),
            _cell(evidence, case, "memory", "activation_peak_bytes", human_bytes),
            _times(less),
            *(_cell(evidence, case, "memory", name, human_bytes) for name in process),
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


def drift_table(evidence: Evidence) -> Table | None:
    """Angle and error of the gradient against the float64 stored reference."""
    cases = evidence.cases("drift")
    if not cases:
        return None
    rows: list[list[str]] = []
    breaks = []
    for group in paired(case.replace(dtype="float32") for case in cases):
        breaks.append(len(rows))
        for twin in dict.fromkeys(group):
            for case in (c for c in cases if c.replace(dtype="float32") == twin):
                failure = evidence.failure(case, "drift")
                angles = [
                    (math.inf if (angle := row.number("worst_tensor_angle_degrees")) is None else angle, row)
                    for row in evidence.launches(case, "drift")
                ]
                angle, worst = max(angles, key=lambda found: found[0], default=(math.inf, None))
                rows.append(
                    [
                        title_of(case.model), strategy_of(case), case.dtype,
                        failure or _drift_cell(evidence, case, "angle_degrees", human_degrees),
                        _drift_cell(evidence, case, "relative_error", lambda v: f"{v:.1e}" if v else "0"),
                        human_degrees(angle) if math.isfinite(angle) else MISSING,
                        str((worst.metrics.get("worst_tensor") if worst else None) or MISSING),
                    ]
                )  # fmt: skip
    draws = {len(evidence.samples(c, "drift", "angle_degrees")) for c in cases if evidence.failure(c, "drift") is None}
    few = " Fewer than 30 draws: the quantiles are rough." if draws and min(draws) < 30 else ""
    notes = [
        "Against the gradient of stored in float64 with the same weights and batch, before weight decay. Median"
        f" (5 % to 95 %) over {' or '.join(map(str, sorted(draws)))} draws of weights and batch.{few}",
        "stored in float64 is the reference itself, so its angle is 0. A ReLU unit whose sign differs from the reference's"
        " moves the angle more than rounding does; these figures hold both, for stored and reconstructed alike.",
    ]
    columns = ("Network", "Strategy", "dtype", "Angle", "Relative error", "Worst tensor", "which")
    return Table("Angle and error of the gradient, against float64", columns, rows, 3, notes, breaks[1:])


def table_two(evidence: Evidence) -> Table | None:
    """Table 2 of the paper, our counts beside its own."""
    counts = {
        (c.model, c.num_classes): evidence.value(c, "parameters", "parameters") for c in evidence.cases("parameters")
    }
    if not counts:
        return None
    published = {row.model: row for row in paper.TABLE_2}
    rows = []
    for name, a in CATALOGUE.items():
        printed = published.get(name)
        both = [(None, a.num_classes)] + ([(100, 100)] if a.stem == "cifar" else [])
        ours = [counts.get((name, key)) for key, _ in both]
        theirs = [printed.parameters_millions.get(classes, MISSING) if printed else MISSING for _, classes in both]
        rows.append(
            [
                title_of(name), "ImageNet" if a.stem == "imagenet" else "CIFAR", "yes" if a.bottleneck else "no",
                "-".join(map(str, a.units)), "-".join(map(str, (a.stem_channels, *a.channels))),
                " / ".join(f"{s.median:,.0f}" if s else MISSING for s in ours),
                " / ".join(theirs),
            ]
        )  # fmt: skip
    columns = ("Network", "Data", "Bottleneck", "Units", "Channels", "Parameters, ours", "Parameters, paper, M")
    notes = [
        f"Paper: Table 2 of {paper.GOMEZ_2017}; 10 / 100 classes for CIFAR. Its RevNet-104 is printed as 45.2 M, while the"
        " rules of its text and the authors' code give our count. Networks with a dash are from the authors' code"
        " (github.com/renmengye/revnet-public), not from Table 2.",
    ]
    breaks = [i for i, row in enumerate(rows) if i and row[1] != rows[i - 1][1]]
    return Table("Networks and parameters (Table 2)", columns, rows, 5, notes, breaks)


def training_table(evidence: Evidence) -> Table | None:
    """Where each training run ended."""
    cases = evidence.cases("training")
    if not cases:
        return None
    rows = []
    for case in cases:
        strategy = strategy_of(case) + (f", null {case.ulp}" if case.ulp else "")
        percent: Callable[[float], str] = lambda v: f"{v:.1%}"  # noqa: E731
        rows.append(
            [
                title_of(case.model), strategy, case.data, _images(evidence, case), str(case.batch_size),
                str(case.training_steps),
                evidence.failure(case, "training") or _cell(evidence, case, "training", "train_loss", lambda v: f"{v:.3f}"),
                _cell(evidence, case, "training", "train_error", percent),
                _cell(evidence, case, "training", "validation_error", percent),
                _cell(evidence, case, "training", "step_seconds", human_seconds),
            ]
        )  # fmt: skip
    notes = [
        "Training figures are means over the last tenth of the"
        " steps. A null is the stored RevNet with one weight moved by one unit in the last place: what lies within its spread"
        " is not a difference of strategy.",
    ]
    columns = (
        "Network",
        "Strategy",
        "Data",
        "Images",
        "Batch",
        "Steps",
        "Training loss",
        "Training error",
        "Validation error",
        "Step",
    )
    return Table("Where each training run ended", columns, rows, 3, notes)


def _images(evidence: Evidence, case: Case) -> str:
    """How many training images of how many, and how many for validation."""
    names = ("train_images", "train_images_available", "validation_images")
    used, there, held_out = (evidence.value(case, "training", name) for name in names)
    if used is None or there is None or held_out is None:
        return MISSING
    of = f" of {there.median:,.0f}" if there.median != used.median else ""
    return f"{used.median:,.0f}{of}, {held_out.median:,.0f} to validate"


def failure_table(evidence: Evidence) -> Table | None:
    """The rows without figures, and why."""
    bad = [row for row in evidence.rows if not row.ok]
    if not bad:
        return None
    launches: dict[tuple[str, str, str, str], list[int]] = {}
    for row in bad:
        launches.setdefault((row.probe, row.case.id, row.status, row.message or MISSING), []).append(row.repeat)
    rows = [[probe, case, ", ".join(map(str, of)), status, why] for (probe, case, status, why), of in launches.items()]
    return Table("Cases without figures", ("Probe", "Case", "Launches", "Status", "Why"), rows, 5)


def environment_table(evidence: Evidence) -> Table:
    """The machine and its software."""
    e = evidence.environment
    rows = [
        ["Environment", str(e.get("environment_id", MISSING))],
        [
            "CPU",
            f"{e['cpu']['model']}, {e['cpu']['usable_cores']} of {e['cpu']['logical_cores']} cores, {e['cpu']['capability']}",
        ],
        ["Memory", human_bytes(e["memory_bytes"])],
    ]
    for a in e["accelerators"]:
        rows.append(["Accelerator", f"{a['name']}, {human_bytes(a['memory_bytes'])}, driver {a['driver']}"])
    if not e["accelerators"]:
        rows.append(["Accelerator", "none"])
    packages = ", ".join(f"{name} {version}" for name, version in e["packages"].items() if version)
    rows += [["System", str(e["system"])], ["Software", f"Python {e['python']}, {packages}"]]
    rows.append(["PyTorch threads", str(e["torch"]["threads"])])
    return Table("Hardware and software", ("What", "Found"), rows, 2)


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


def _cell(
    evidence: Evidence, case: Case, probe: str, metric: str, show: Callable[[float], str], *, spread: bool = False
) -> str:
    found = evidence.value(case, probe, metric)
    if found is None:
        return MISSING
    return show(found.median) + (_spread(found, show) if spread and found.launches > 1 else "")


def _spread(found: Statistic, show: Callable[[float], str]) -> str:
    return f" ({show(found.low)} to {show(found.high)})"


def _drift_cell(evidence: Evidence, case: Case, metric: str, show: Callable[[float], str]) -> str:
    samples = evidence.samples(case, "drift", metric)
    if not samples:
        return "not finite" if evidence.launches(case, "drift") else MISSING
    low, middle, high = np.quantile(samples, (0.05, 0.5, 0.95)).tolist()
    return show(middle) + (f" ({show(low)} to {show(high)})" if high > 0 else "")


def _times(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.2f} ×"


def _launches(evidence: Evidence, probe: str) -> str:
    counts = [len(evidence.launches(case, probe)) for case in evidence.cases(probe)]
    if max(counts, default=0) <= 1:
        return "Median over the steps of one launch a case: a ratio may differ by some percent from launch to launch."
    number = str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    return f"Median over {number} launches of each launch's median step (smallest to largest in brackets)."
