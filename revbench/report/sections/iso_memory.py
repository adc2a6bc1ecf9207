"""Within the same memory: what each strategy achieves."""

from __future__ import annotations

from collections.abc import Iterator

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import ordinary_of
from revbench.prediction.allocator import caveat
from revbench.prediction.declared import FIT
from revbench.probes.declared import MEMORY, TIME
from revbench.report.charts.times import Bar, speed_figure
from revbench.report.document import MISSING, Figure, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import (
    Column,
    lay_out,
    tokens,
    value_cell,
    value_column,
    why_unstable,
    with_interval,
    with_something,
    words,
)
from revbench.report.within_limit import batch_of, items_per_second, speed_ratio, timed_within
from revbench.units import human_bytes, human_rate

_STEP = TIME["step_seconds"]


def section(evidence: Evidence) -> Section | None:
    """Returns the picture, then the table of all limits."""
    return Section.of("Within the same memory", [limit_figure(evidence), limit_table(evidence)])


def limit_figure(evidence: Evidence) -> Figure | None:
    """Returns bars of items a second, a panel a limit and pair."""
    panels, titles = [], []
    for (limit, _), cases in _by_limit(evidence).items():
        bars = []
        for case in cases:
            speed, ratio = items_per_second(evidence, case), speed_ratio(evidence, case, case.stored())
            if speed:
                name = f"{network_name(case)} {strategy_of(case)}, batch {batch_of(evidence, case)}"
                words = f"{name}: {human_rate(speed)} {case.item}s a second"
                bars.append(Bar(case, {"": speed}, ratio, words))
        if bars:
            panels.append(bars)
            titles.append(f"Within {human_bytes(limit)}")
    note = "Each with the largest batch that fits. Behind each bar: over stored of the network; brackets: an interval of 95 %."
    return speed_figure(panels, titles, note)


def limit_table(evidence: Evidence) -> Table | None:
    """Returns items a second of each strategy, with the largest batch that fits into a memory limit."""
    groups = _by_limit(evidence)
    cases = [case for group in groups.values() for case in group]
    if not cases:
        return None

    def step(case: Case) -> str:
        timed = timed_within(evidence, case)
        return value_cell(evidence, timed, _STEP) if timed is not None else MISSING

    def measured_peak(case: Case) -> str:
        timed = timed_within(evidence, case)
        return value_cell(evidence, timed, MEMORY["peak_bytes"]) if timed is not None else MISSING

    def speed(case: Case) -> str:
        found = items_per_second(evidence, case)
        return f"{human_rate(found)}{tokens(case)}" if found else MISSING

    def to_stored(case: Case) -> str:
        return with_interval(speed_ratio(evidence, case, case.stored()))

    columns = [
        words("Limit", lambda case: human_bytes(case.memory_limit_bytes)),
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        Column("Batch", lambda case: batch_of(evidence, case)),
        value_column(evidence, FIT["predicted_peak_bytes"]),
        *with_something([Column("Measured peak", measured_peak)], cases),  # runs of before November 2026 have none
        Column("Step", step),
        Column("Items a second", speed),
        Column("to stored", to_stored),
    ]
    unstable = why_unstable(
        (f"{network_name(case)} {strategy_of(case)}", speed_ratio(evidence, case, case.stored())) for case in cases
    )
    notes = [_note(evidence, cases), *unstable]
    return lay_out(
        "Items a second within the same memory", columns, groups.values(), notes, name="within-the-same-memory"
    )


def _by_limit(evidence: Evidence) -> dict[tuple[int, str], list[Case]]:
    """Returns the cases of each limit and pair."""
    groups: dict[tuple[int, str], list[Case]] = {}
    for case in evidence.cases(FIT):
        if case.memory_limit_bytes and case.depth is None:
            groups.setdefault((case.memory_limit_bytes, ordinary_of(case)), []).append(case)
    return groups


def fastest_within(evidence: Evidence) -> Iterator[str]:
    """Returns for each limit a sentence that names the fastest, if it is surely faster than all others in it."""
    for (limit, _), cases in _by_limit(evidence).items():
        speeds = {case: speed for case in cases if (speed := items_per_second(evidence, case))}
        if len(speeds) < 2:
            continue
        best = max(speeds, key=speeds.__getitem__)
        if all(_is_surely_faster(evidence, best, other) for other in speeds if other != best):
            batch = batch_of(evidence, best)
            yield (
                f"Within {human_bytes(limit)} {network_name(best)} {strategy_of(best)} is fastest"
                f" ({human_rate(speeds[best])} {best.item}s a second, batch {batch})."
            )


def _is_surely_faster(evidence: Evidence, case: Case, other: Case) -> bool:
    found = speed_ratio(evidence, case, other)
    return found is not None and found.low is not None and found.low > 1


def _note(evidence: Evidence, cases: list[Case]) -> str:
    one = cases[0]
    margins = {s.median for c in cases if (s := evidence.value(c, FIT["margin"]))}
    margin = f", {max(margins):.0%} of it left free" if any(margins) else ""
    enforced = "PyTorch's allocator gives out no more" if one.on_gpu else "live tensors; nothing enforces it"
    batches = "Batch: the largest whose predicted peak fits; the time is measured."
    if one.on_gpu:
        batches += " One that did not fit after all was made smaller, so the predicted peak is that of the first try."
    batches += _caveat(evidence, one)
    return f"{circumstances(one, batch=False)}. Limit: {enforced}{margin}.{_less(evidence, cases)} {batches}"


def _caveat(evidence: Evidence, case: Case) -> str:
    said = caveat(evidence.environment.get("gpu_settings", {})) if case.on_gpu else None
    return f" {said}" if said else ""


def _less(evidence: Evidence, cases: list[Case]) -> str:
    """Says of limits that the GPU did not have whole what it had."""
    usable = {c.memory_limit_bytes: s.median for c in cases if (s := evidence.value(c, FIT["usable_limit_bytes"]))}
    less = [
        f" Of {human_bytes(limit)} the GPU had {human_bytes(int(had))}." for limit, had in usable.items() if had < limit
    ]
    return "".join(less)
