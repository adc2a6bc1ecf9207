"""All ways to train each pair in the plane of memory and time, with the ways that none beats in both."""

from __future__ import annotations

from typing import Any

import numpy as np

from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import is_ordinary
from revbench.report.charts.canvas import canvas, svg_of, with_tip
from revbench.report.charts.plotting import Line2D, LogLocator, NullLocator
from revbench.report.colours import INK, SOFT, look_of
from revbench.report.document import Figure
from revbench.report.evidence import Evidence
from revbench.report.table import why_unstable
from revbench.report.ways import Way, base_of, front_of, groups_of, ways_of

MOST_PANELS = 4
_THEORY = 4 / 3  # of the operations (Gomez et al. 2017, section 3.2)
_PAPER = (1.5, 2.0)  # of the time, in the authors' own implementation (same section)
_MIB = 2**20


def pairs_plane(evidence: Evidence) -> Figure | None:
    """Draws peak memory against time relative to the RevNet's under stored, a panel a pair: down and to the left is better."""
    panels = _panels(evidence)[:MOST_PANELS]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    with canvas(2.7 * rows + 0.7, min(len(panels), 2), rows=rows) as (figure, found):
        axes = np.ravel(found)
        for axis, points in zip(axes, panels, strict=False):
            _draw(axis, points)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        legend = _legend([point for points in panels for point in points])
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=4)
        svg = svg_of(figure)
    said = "; ".join(point.words for points in panels for point in points)
    notes = [
        f"{'; '.join(dict.fromkeys(circumstances(points[0].case) for points in panels))}. Time of a step, over that of the"
        " reversible network under stored; bars: intervals of 95 %. Memory: on a CPU the peak of live tensors, on a GPU the most"
        " that the allocator gave out. Grey line: the ways that none beats in both. Dashed: 4/3, the operations of reconstruction"
        " in theory; shaded: 1.5 to 2, the time of the authors' own implementation (Gomez et al. 2017, section 3.2)."
    ]
    if any(point.ratio.unstable for points in panels for point in points):
        unstable = [(f"{network_name(p.case)} {strategy_of(p.case)}", p.ratio) for ways in panels for p in ways]
        notes += [f"Pale: u{why[1:]}" for why in why_unstable(unstable)]
    return Figure("Time against memory of all strategies", "time-against-memory", svg, f"{said}.", notes)


def _panels(evidence: Evidence) -> list[list[Way]]:
    found = (ways_of(evidence, cases) for cases in groups_of(evidence))
    return [ways for ways in found if len(ways) > 1]


def _draw(axis: Any, points: list[Way]) -> None:
    axis.axhspan(*_PAPER, color=SOFT, alpha=0.13, linewidth=0)
    axis.axhline(_THEORY, color=SOFT, linewidth=1.1, linestyle="--")
    front = front_of(points)
    axis.plot(
        [p.peak_bytes / _MIB for p in front], [p.ratio.value for p in front], color=SOFT, linewidth=1.3, zorder=1, alpha=0.8
    )  # fmt: skip
    for point in points:
        look, ratio = look_of(point.case), point.ratio
        low, high = (ratio.value if end is None else end for end in (ratio.low, ratio.high))
        drawn = axis.errorbar(
            point.peak_bytes / _MIB, ratio.value, yerr=[[ratio.value - low], [high - ratio.value]],
            fmt=look.marker, color=look.colour, markersize=7, linewidth=1.1, alpha=0.35 if ratio.unstable else 1.0,
            markerfacecolor="none" if is_ordinary(point.case) else None,
        )  # fmt: skip
        with_tip(drawn.lines[0], point.words)
    names = list(dict.fromkeys(network_name(point.case) for point in points))
    base = base_of([point.case for point in points])
    axis.set(
        title=" and ".join(names), xscale="log",
        xlabel=f"{'allocated memory' if base.on_gpu else 'peak memory'} of a step, MiB",
        ylabel=f"time of a step, over {network_name(base)} stored",
    )  # fmt: skip
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())


def _legend(points: list[Way]) -> dict[str, Any]:
    """Returns the kinds of networks by how they are filled, and the strategies by marker and colour."""

    def sign(marker: str, colour: str, *, hollow: bool) -> Any:
        fill = "none" if hollow else colour
        return Line2D([], [], marker=marker, color=colour, markerfacecolor=fill, linestyle="none", markersize=7)

    kinds: dict[bool, dict[str, None]] = {}
    for point in points:
        known = point.case.architecture
        kinds.setdefault(is_ordinary(point.case), {})[network_name(point.case) if known is None else known.kind] = None
    shapes = {", ".join(kinds[hollow]): sign("o", INK, hollow=hollow) for hollow in sorted(kinds)}
    looks = {strategy_of(point.case): look_of(point.case) for point in points}
    return {**shapes, **{name: sign(look.marker, look.colour, hollow=False) for name, look in looks.items()}}
