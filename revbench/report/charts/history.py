"""A metric over many runs, with its levels and the runs at which they changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from revbench.compare.history import History
from revbench.report.charts.canvas import canvas, svg_of
from revbench.report.colours import INK, SOFT, STATE

MOST_PANELS = 12
_SIGNS = {"worse": "▲ worse", "better": "▼ better", "other": "changed"}
_COLOURS = {"worse": "#c8451c", "better": "#1b7837", "other": "#a3701e"}
_MOST_TICKS = 6


def history_picture(histories: Sequence[History]) -> str:
    """Draws the first histories, a panel each: a dot a run, a line a level, and what the level changed by.

    Args:
        histories: at least one; no more than `MOST_PANELS` are drawn.

    Returns:
        The SVG.
    """
    shown = histories[:MOST_PANELS]
    with canvas(2.5 * len(shown), rows=len(shown), width=10.2) as (figure, found_axes):
        for axis, history in zip(np.ravel(found_axes), shown, strict=True):
            _draw(axis, history)
        return svg_of(figure)


def _draw(axis: Any, history: History) -> None:
    points = history.points
    many = len(points) > 200
    runs = np.arange(len(points))
    axis.vlines(runs, [p.low for p in points], [p.high for p in points], color=STATE, linewidth=1)
    axis.plot(runs, [p.value for p in points], ".", color=SOFT, markersize=3 if many else 6)
    of_run = {point.run: i for i, point in enumerate(points)}
    starts = [of_run[change.run] for change in history.changes]
    levels = [*(change.before for change in history.changes[:1]), *(change.after for change in history.changes)]
    for level, first, end in zip(levels, [0, *starts], [*starts, len(points)], strict=bool(levels)):
        axis.hlines(level, first - 0.5, end - 0.5, color=INK, linewidth=1.4)
    for change, start in zip(history.changes, starts, strict=True):
        colour = _COLOURS[change.outcome]
        axis.axvline(start - 0.5, color=colour, linestyle="--", linewidth=1.2)
        late = start > 0.75 * len(points)  # its words stand to the left, so that they stay inside
        axis.annotate(
            f"{_SIGNS[change.outcome]} {change.by}".rstrip(), (start - 0.5, 1.0), xycoords=("data", "axes fraction"),
            xytext=(-4 if late else 4, -3), textcoords="offset points", ha="right" if late else "left", va="top",
            fontsize=8.5, color=colour,
        )  # fmt: skip
    axis.margins(y=0.25)
    axis.set_title(f"{history.title}\n{history.machine}", fontsize=9)
    axis.yaxis.set_major_formatter(lambda value, _: history.metric.show(value) or "")
    ticks = np.unique(np.linspace(0, len(points) - 1, min(len(points), _MOST_TICKS)).round().astype(int))
    axis.set_xticks(ticks, [points[i].started[:10] or points[i].run for i in ticks])
    axis.set_xlim(-0.7, len(points) - 0.3)
