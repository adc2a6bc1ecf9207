"""What somebody must know who reads ten seconds: for each RevNet what reconstruction saves, costs, and does to the gradient."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from revbench.case import Case
from revbench.case.labels import strategy_of, title_of
from revbench.compare.ratios import Ratio
from revbench.probes.declared import DRIFT, MEMORY, TIME
from revbench.report.evidence import Evidence
from revbench.report.sections.step_tables import has_its_own_table
from revbench.units import human_bytes, human_degrees

WIDTH = 80  # of a terminal
_HEADS = ("", "peak memory", "step", "items a second", "gradient off")


@dataclass(frozen=True)
class Headline:
    """One network, reconstructed beside stored.

    Attributes:
        case: the reconstructed one.
        peak_bytes: of a step, stored and reconstructed.
        ratio: of the times of a step.
        items_per_second: stored and reconstructed.
        angle_degrees: of the gradient against float64, stored and reconstructed.
    """

    case: Case
    peak_bytes: tuple[float, float] | None
    ratio: Ratio | None
    items_per_second: tuple[float, float] | None
    angle_degrees: tuple[float, float] | None

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What a table has of it."""
        peak = items = angle = "–"
        if self.peak_bytes is not None:
            before, now = (human_bytes(value) for value in self.peak_bytes)
            peak = f"{_without_same_unit(before, now)} → {now}"
        if self.items_per_second is not None:
            items = " → ".join(f"{value:,.0f}" for value in self.items_per_second)
        if self.angle_degrees is not None:
            off, now = (human_degrees(value) for value in self.angle_degrees)
            angle = f"{off.removesuffix('°')} → {now}"
        step = (
            "–" if self.ratio is None else "unstable" if self.ratio.unstable else str(self.ratio).replace(" to ", "–")
        )
        return title_of(self.case.model), peak, step, items, angle


def _without_same_unit(one: str, other: str) -> str:
    value, _, unit = one.partition(" ")
    return value if other.endswith(f" {unit}") else one


def headlines(evidence: Evidence) -> list[Headline]:
    """Returns one of each network that was measured reconstructed, with whatever there is of it."""
    found = []
    for case in evidence.cases(MEMORY, TIME):
        if strategy_of(case) != "reconstructed" or has_its_own_table(case):
            continue
        twin = case.stored()
        peaks, steps = (
            [evidence.value(c, metric) for c in (twin, case)] for metric in (MEMORY["peak_bytes"], TIME["step_seconds"])
        )
        angles = evidence.samples(case, DRIFT["angle_degrees"])
        stored = evidence.samples(case, DRIFT["stored_angle_degrees"]) or evidence.samples(twin, DRIFT["angle_degrees"])
        found.append(
            Headline(
                case,
                (peaks[0].median, peaks[1].median) if peaks[0] and peaks[1] else None,
                evidence.time_ratio(case, twin),
                (case.batch_size / steps[0].median, case.batch_size / steps[1].median) if steps[0] and steps[1] else None,
                (statistics.median(stored), statistics.median(angles)) if angles and stored else None,
            )
        )  # fmt: skip
    return found


def lines_of(found: Sequence[Headline]) -> list[str]:
    """Returns a table of at most `WIDTH` letters a line: a network whose line would be longer takes several."""
    if not found:
        return []
    rows = [_HEADS, *(one.cells for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS))]
    if sum(widths) + 2 * (len(widths) - 1) <= WIDTH:
        return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines = []
    for one in found:
        lines.append(one.cells[0][:WIDTH])
        lines += [f"  {head:<18} {cell}" for head, cell in zip(_HEADS[1:], one.cells[1:], strict=True)]
    return lines


def advice(evidence: Evidence, found: Sequence[Headline]) -> str | None:
    """Returns a sentence that weighs all strategies of the network that needs most; None where memory or time is missing or
    unstable."""
    told = [one for one in found if one.peak_bytes is not None and one.ratio is not None and not one.ratio.unstable]
    if not told:
        return None
    largest = max(told, key=lambda one: one.peak_bytes[0] if one.peak_bytes else 0)
    twin = largest.case.stored()
    ways = [
        (case, peak.median, ratio)
        for case in evidence.cases(MEMORY, TIME)
        if case.stored() == twin
        and (peak := evidence.value(case, MEMORY["peak_bytes"])) is not None
        and (ratio := evidence.time_ratio(case, twin)) is not None
        and not ratio.unstable
    ]
    name = title_of(largest.case.model)
    fastest = min(ways, key=lambda way: way[2].value)
    front = _front(ways)
    others = [
        f"{strategy_of(case)} ({human_bytes(peak)}, {ratio.value:.2f} ×)"
        for case, peak, ratio in front
        if case != fastest[0]
    ]
    if not others:
        return f"{name}: {strategy_of(fastest[0])} is fastest and needs least memory ({human_bytes(fastest[1])})."
    return (
        f"{name}: {strategy_of(fastest[0])} is fastest; where its {human_bytes(fastest[1])} do not fit:"
        f" {', then '.join(others)}."
    )


def _front(ways: Sequence[tuple[Case, float, Ratio]]) -> list[tuple[Case, float, Ratio]]:
    """Returns those that none beats in both time and memory, the fastest first."""
    front: list[tuple[Case, float, Ratio]] = []
    for way in sorted(ways, key=lambda way: way[2].value):
        if not front or way[1] < front[-1][1]:
            front.append(way)
    return front
