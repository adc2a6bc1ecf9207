"""Bars of speed: the time of a step by its phases, and items a second within the same memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import paired
from revbench.compare.ratios import Ratio
from revbench.probes.declared import PHASES, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.canvas import canvas, first_of, svg_of, with_tip
from revbench.report.charts.plotting import Line2D
from revbench.report.colours import INK, look_of
from revbench.report.document import Figure
from revbench.report.evidence import Evidence
from revbench.units import human_seconds

MOST_PANELS = 4
_SHADES = {"forward": 0.4, "backward": 1.0, "optimizer": 0.7}


class Bar(NamedTuple):
    """What one bar shows: of a case, a value for each of its parts, beside stored's."""

    case: Case
    parts: Mapping[str, float]
    ratio: Ratio | None
    words: str


def time_figure(evidence: Evidence) -> Figure | None:
    """Draws the time of a step of each way to train, forward, backward and optimizer, a panel a pair."""
    panels = []
    for group in paired(case for case in evidence.cases(TIME) if not has_its_own_table(evidence, case)):
        if bars := [bar for case in group if (bar := _of_step(evidence, case)) is not None]:
            panels.append(bars)
    count, panels = len(panels), panels[:MOST_PANELS]
    if not panels or max(map(len, panels)) < 2:
        return None
    shared = "; ".join(dict.fromkeys(circumstances(bars[0].case) for bars in panels))
    note = (
        f"{shared}. The median of a step, shared by its phases as their own medians are. To the right of each bar: its time over"
        " that of stored; brackets: an interval of 95 %."
        f"{first_of(count, MOST_PANELS)}"
    )
    svg = _bars(panels, "ms a step", 1e3)
    said = "; ".join(bar.words for bars in panels for bar in bars)
    return Figure("Time of a training step", "time-of-a-step", svg, f"{said}.", (note,))


def _of_step(evidence: Evidence, case: Case) -> Bar | None:
    step = evidence.value(case, TIME["step_seconds"])
    found = {phase: evidence.value(case, TIME[f"{phase}_seconds"]) for phase in PHASES}
    parts = {phase: value.median for phase, value in found.items() if value is not None}
    if step is None or len(parts) < len(PHASES):
        return None
    words = f"{network_name(case)} {strategy_of(case)}: {human_seconds(step.median)}"
    together = sum(parts.values())
    shares = {phase: step.median * value / together for phase, value in parts.items()} if together else parts
    return Bar(case, shares, evidence.time_ratio(case, case.stored()), words)


def speed_figure(panels: Sequence[Sequence[Bar]], titles: Sequence[str], note: str) -> Figure | None:
    """Draws items a second within the same memory, a panel a limit; of many limits the first.

    Args:
        panels: for each limit a bar of one part for each case.
        titles: of the panels.
        note: under the picture.
    """
    note += first_of(len(panels), MOST_PANELS)
    panels, titles = panels[:MOST_PANELS], titles[:MOST_PANELS]
    if not panels or max(map(len, panels)) < 2:
        return None
    said = "; ".join(f"{title}: {bar.words}" for title, bars in zip(titles, panels, strict=True) for bar in bars)
    svg = _bars(panels, "items a second", 1.0, titles=titles)
    return Figure("Items a second within the same memory", "speed-within-the-same-memory", svg, f"{said}.", (note,))


def _bars(panels: Sequence[Sequence[Bar]], unit: str, factor: float, *, titles: Sequence[str] = ()) -> str:
    """Draws horizontal bars, a panel below the other."""
    with canvas(0.4 + 0.5 * len(panels) + 0.18 * sum(map(len, panels)), rows=len(panels)) as (figure, found):
        for i, (axis, bars) in enumerate(zip(np.ravel(found), panels, strict=True)):
            _draw(axis, bars, factor)
            axis.set_xlabel(unit)
            if titles:
                axis.set_title(titles[i], loc="left")
        names = list(panels[0][0].parts)
        if len(names) > 1:
            handles = [Line2D([], [], color=INK, alpha=_SHADES[name], linewidth=6) for name in names]
            figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        return svg_of(figure)


def _draw(axis: Any, bars: Sequence[Bar], factor: float) -> None:
    models = {bar.case.model for bar in bars}
    longest = max(sum(bar.parts.values()) for bar in bars) * factor
    for at, bar in enumerate(bars):
        left = 0.0
        for name, value in bar.parts.items():
            drawn = axis.barh(
                at, value * factor, left=left, color=look_of(bar.case).colour, alpha=_SHADES.get(name, 1.0), height=0.68
            )
            with_tip(list(drawn), f"{bar.words}{f'; {name} {human_seconds(value)}' if len(bar.parts) > 1 else ''}")
            left += value * factor
        axis.annotate(
            _said(bar.ratio), (left, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7.5
        )  # fmt: skip
    labels = [f"{network_name(b.case)} {strategy_of(b.case)}" if len(models) > 1 else strategy_of(b.case) for b in bars]
    axis.set_yticks(range(len(bars)), labels)
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.42)
    axis.grid(axis="y", visible=False)


def _said(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return "unstable" if ratio.unstable else str(ratio)
