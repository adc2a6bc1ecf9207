"""Why the system shows another figure than the tensors: each gap between them by name, as a table and as waterfalls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from revbench.case import Case
from revbench.probes.reconciliation import CPU_CHAIN, GAP_WORDS, GPU_CHAIN
from revbench.report.document import MISSING, Figure, Table
from revbench.report.evidence import Evidence, paired
from revbench.report.figures import canvas, is_resnet, svg_of
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_bytes

LEVELS = {
    "peak_bytes": "live tensors", "requested_peak_bytes": "requested", "allocated_peak_bytes": "allocated",
    "reserved_peak_bytes": "reserved", "nvml_process_bytes": "process (NVML)", "nvml_device_used_bytes": "device (NVML)",
    "unique_set_bytes": "unique set", "rss_bytes": "resident set",
}  # fmt: skip
_SHORT = {
    "workspace_bytes": "workspace", "rounding_bytes": "rounding", "cache_bytes": "cache, fragmentation",
    "context_bytes": "context", "others_bytes": "other processes", "interpreter_bytes": "Python, malloc",
    "shared_bytes": "shared",
}  # fmt: skip
Chain = Sequence[tuple[str, str, str]]


def _chain(case: Case) -> Chain:
    return CPU_CHAIN if case.device == "cpu" else GPU_CHAIN


def _cases(evidence: Evidence) -> list[Case]:
    """The networks of the pairs that have the figures, as they stand in the memory table."""
    return [
        case
        for case in evidence.cases("memory")
        if ":" not in case.model and evidence.value(case, "memory", _chain(case)[0][0]) is not None
    ]


def reconciliation_table(evidence: Evidence) -> Table | None:
    """Live tensors, each gap, and what the system shows."""
    cases = _cases(evidence)
    if not cases:
        return None
    chain = _chain(cases[0])
    names = [chain[0][1]]
    for gap, _, above in chain:
        names += [gap, above]
    rows: list[list[str]] = []
    breaks = []
    for group in paired(c for c in cases if _chain(c) is chain):
        breaks.append(len(rows))
        for case in group:
            found = [evidence.value(case, "memory", name) for name in names]
            cells = [human_bytes(s.median) if s else MISSING for s in found]
            rows.append([title_of(case.model), strategy_of(case), *cells])
    columns = ("Network", "Strategy", *(LEVELS.get(n) or f"+ {_SHORT[n]}" for n in names))
    words = "; ".join(f"{_SHORT[gap]}: {GAP_WORDS[gap]}" for gap, _, _ in chain if GAP_WORDS[gap] != _SHORT[gap])
    notes = [f"Peaks of a fresh process; a gap is the difference of its neighbours. {words[:1].upper()}{words[1:]}."]
    if chain is GPU_CHAIN:
        retries, ooms = (sum(_all(evidence, cases, name)) for name in ("allocation_retries", "allocator_ooms"))
        notes.append(
            "nvidia-smi shows what the process has reserved and its context, not the tensors: after the first step the"
            " allocator keeps the peak, so a saving shows there only in a process that never stored the activations."
            f" Retries of the allocator: {retries:.0f}; allocations that failed: {ooms:.0f}."
        )
    notes += _leaks(evidence)
    return Table("From live tensors to what the system shows", columns, rows, 2, notes, breaks[1:])


def _leaks(evidence: Evidence) -> list[str]:
    """What the tensors alive at the end of a step grow by."""
    said = []
    for case in evidence.cases("leak"):
        names = ("leak_bytes_per_step", "leak_low_bytes_per_step", "leak_high_bytes_per_step", "steps")
        slope, low, high, steps = (evidence.value(case, "leak", name) for name in names)
        if slope and low and high and steps:
            interval = f"{human_bytes(low.median)} to {human_bytes(high.median)}, 95 %, {steps.median:.0f} steps"
            said.append(f"{title_of(case.model)} {strategy_of(case)} {human_bytes(slope.median)} ({interval})")
    return [f"Growth of what is alive at the end of a step, a step: {'; '.join(said)}."] if said else []


def _all(evidence: Evidence, cases: Sequence[Case], metric: str) -> list[float]:
    return [found.high for case in cases if (found := evidence.value(case, "memory", metric)) is not None]


def waterfalls(evidence: Evidence) -> Iterator[Figure]:
    """For each RevNet, the chain under stored and under reconstructed: where the saving goes on its way to nvidia-smi."""
    for group in paired(_cases(evidence)):
        shown = [c for c in group if not is_resnet(c) and c.nonreversible == "kept"]
        shown = [c for c in shown if c.strategy in ("stored", "reconstructed")]
        falls = [(case, _fall(evidence, case)) for case in shown]
        falls = [(case, fall) for case, fall in falls if len(fall) > 1]
        if len(falls) < 2:
            continue
        said = []
        crowded = max(len(fall) for _, fall in falls) > 6
        with canvas(5.0 * len(falls), 3.4, len(falls), one_scale=True) as (figure, axes):
            for axis, (case, fall) in zip(axes, falls, strict=True):
                for at, (_, start, height, level) in enumerate(fall):
                    colour = "#3b6ea5" if level else ("#d9a441" if height >= 0 else "#b04a4a")
                    axis.bar(at, height / 2**20, bottom=start / 2**20, color=colour, width=0.72)
                    top = max(start, start + height)
                    text = human_bytes(height) if level else f"{'+' if height >= 0 else '-'}{human_bytes(abs(height))}"
                    axis.annotate(
                        text, (at, top / 2**20), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7,
                        rotation=90 if crowded else 0,
                    )  # fmt: skip
                axis.set_xticks(
                    range(len(fall)),
                    [name for name, *_ in fall],
                    rotation=35,
                    ha="right",
                    rotation_mode="anchor",
                    fontsize=8,
                )
                axis.set_title(strategy_of(case))
                axis.grid(axis="x", visible=False)
                ends = fall[0][2], fall[-1][1] + fall[-1][2] if not fall[-1][3] else fall[-1][2]
                said.append(f"{strategy_of(case)} from {human_bytes(ends[0])} to {human_bytes(ends[1])}")
            axes[0].set_ylabel("MiB")
            axes[0].set_ylim(top=axes[0].get_ylim()[1] * (1.3 if crowded else 1.06))
            svg = svg_of(figure)
        name = title_of(falls[0][0].model)
        note = f"{circumstances(falls[0][0])}. Blue: what is counted; yellow: what comes on top of it; both panels to one scale."
        title = f"From live tensors to what the system shows: {name}"
        yield Figure(title, "waterfall", svg, f"{name}: {'; '.join(said)}.", (note,))


def _fall(evidence: Evidence, case: Case) -> list[tuple[str, float, float, bool]]:
    """Bars: name, where it starts, its height, whether it is a level; up to the first figure that is missing."""
    chain = _chain(case)
    first = evidence.value(case, "memory", chain[0][1])
    if first is None:
        return []
    bars = [(LEVELS[chain[0][1]], 0.0, first.median, True)]
    for gap, below, above in chain:
        low, high = evidence.value(case, "memory", below), evidence.value(case, "memory", above)
        if low is None or high is None:
            break
        bars += [(_SHORT[gap], low.median, high.median - low.median, False), (LEVELS[above], 0.0, high.median, True)]
    return bars
