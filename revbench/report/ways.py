"""The ways to train a pair: what each needs and takes, which none beats, and a sentence that weighs them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of, title_of
from revbench.case.pairs import group_of, is_ordinary
from revbench.compare.ratios import Ratio
from revbench.probes.declared import MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.evidence import Evidence
from revbench.report.table import with_interval
from revbench.units import human_bytes


class Way(NamedTuple):
    """A network of a pair under a strategy: what its step needs, and how many times as long it takes as the RevNet's under
    stored."""

    case: Case
    peak_bytes: float
    ratio: Ratio

    @property
    def words(self) -> str:
        """All of it, in words."""
        return f"{network_name(self.case)} {strategy_of(self.case)}: {human_bytes(self.peak_bytes)}, {self.ratio}"


def ways_of(evidence: Evidence, cases: Sequence[Case]) -> list[Way]:
    """Returns the ways to train one pair of which memory and time are known, unstable ones included.

    Args:
        evidence: what was measured.
        cases: of one pair.
    """
    base = base_of(cases)
    return [
        Way(case, peak, ratio)
        for case in cases
        if (peak := needed_bytes(evidence, case)) is not None and (ratio := evidence.time_ratio(case, base)) is not None
    ]


def needed_bytes(evidence: Evidence, case: Case) -> float | None:
    """Returns what decides whether a step fits: on a GPU the most that the allocator gave out, else the peak of live tensors."""
    allocated = evidence.value(case, MEMORY["allocated_peak_bytes"]) if case.on_gpu else None
    found = allocated or evidence.value(case, MEMORY["peak_bytes"])
    return found.median if found else None


def groups_of(evidence: Evidence) -> list[list[Case]]:
    """Returns the networks that were measured, pair by pair."""
    groups: dict[Case, list[Case]] = {}
    for case in evidence.cases(MEMORY, TIME):
        if not has_its_own_table(evidence, case):
            groups.setdefault(group_of(case), []).append(case)
    return list(groups.values())


def front_of(ways: Sequence[Way]) -> list[Way]:
    """Returns those of the stable ones that none of them beats in both time and memory, the fastest first."""
    front: list[Way] = []
    for way in sorted(ways, key=lambda way: (way.ratio.value, way.peak_bytes)):
        if not way.ratio.unstable and (not front or way.peak_bytes < front[-1].peak_bytes):
            front.append(way)
    return front


def advice(evidence: Evidence, case: Case | None) -> str | None:
    """Returns a sentence that weighs all ways to train a pair.

    Args:
        evidence: what was measured.
        case: one of the pair's.

    Returns:
        None without a case, or where its memory or time is missing or unstable, or where the host is what was timed.
    """
    if case is None:
        return None
    group = next(group for group in groups_of(evidence) if case in group)
    ways = ways_of(evidence, group)
    stable = [way for way in ways if not way.ratio.unstable]
    known = case in [way.case for way in stable]
    if not known or any(evidence.is_launch_bound(way.case) for way in stable):
        return None
    models = list(dict.fromkeys(network_name(way.case) for way in ways))

    def name(way: Way) -> str:
        return f"{network_name(way.case)} {strategy_of(way.case)}" if len(models) > 1 else strategy_of(way.case)

    quickest = min(stable, key=lambda way: way.ratio.value)
    rivals = [
        way
        for way in stable
        if (r := evidence.time_ratio(way.case, quickest.case)) is not None and (r.low is None or r.low <= 1)
    ]
    first = min([quickest, *rivals], key=lambda way: way.peak_bytes)
    others = [way for way in front_of(stable) if way.peak_bytes < first.peak_bytes]
    said = f"{' and '.join(models)} ({circumstances(case)}): {name(first)} is"
    said += " fastest" if len(rivals) <= 1 else " as fast as any"
    least = min((found for case in group if (found := needed_bytes(evidence, case)) is not None), default=0.0)
    if others:
        ratios = [with_interval(evidence.time_ratio(way.case, first.case), " its time") for way in others]
        fitting = [f"{name(w)} ({human_bytes(w.peak_bytes)}, {ratio})" for w, ratio in zip(others, ratios, strict=True)]
        said += f"; where its {human_bytes(first.peak_bytes)} do not fit: {', then '.join(fitting)}."
    else:
        said += f"{' and needs least memory' if first.peak_bytes <= least else ''} ({human_bytes(first.peak_bytes)})."
    if left := [name(way) for way in ways if way.ratio.unstable]:
        said += f" Left out, since the ratio to {title_of(base_of(group).model)} stored is unstable: {', '.join(left)}."
    return said


def base_of(cases: Sequence[Case]) -> Case:
    """Returns the case that the times of a pair's ways are set beside: the RevNet under stored."""
    revnets = [case for case in cases if not is_ordinary(case)]
    return (revnets or list(cases))[0].stored()
