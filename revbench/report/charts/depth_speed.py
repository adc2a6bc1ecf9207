"""Speed against depth within the same memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revbench.case import Case
from revbench.case.labels import circumstances, strategy_of, title_of
from revbench.case.pairs import is_ordinary
from revbench.report.charts.canvas import canvas, dots, first_of, svg_of
from revbench.report.colours import SOFT, look_of
from revbench.report.document import Figure
from revbench.report.evidence import Evidence
from revbench.report.within_limit import batch_of, speed_ratio
from revbench.units import human_bytes

MOST_PANELS = 2
_MOST_TICKS = 10


def depth_speed_figure(evidence: Evidence, groups: Mapping[Case, Mapping[int, Sequence[Case]]]) -> Figure | None:
    """Draws items a second over those of the reversible network under stored, each with its largest batch, against depth: a panel
    a limit."""
    panels = []
    for key, depths in groups.items():
        lines: dict[Case, list[tuple[int, Case]]] = {}
        for depth, cases in depths.items():
            for case in cases:
                lines.setdefault(case.replace(depth=None), []).append((depth, case))
        base = {depth: _base(cases) for depth, cases in depths.items()}
        if len(depths) > 1:
            panels.append((key, lines, base))
    count, panels = len(panels), panels[:MOST_PANELS]
    if not panels:
        return None
    said: list[str] = []
    with canvas(3.0, len(panels)) as (figure, found):
        for axis, (key, lines, base) in zip(np.ravel(found), panels, strict=True):
            axis.axhline(1.0, color=SOFT, linewidth=1.0, linestyle="--")
            for line, points in lines.items():
                said += _draw(axis, evidence, line, points, base)
            axis.set(
                title=f"{title_of(key.model)} within {human_bytes(key.memory_limit_bytes)}",
                xscale="log",
                xlabel="blocks",
                ylim=(0, None),
            )
            ticks = sorted(base)[:: max(len(base) // _MOST_TICKS, 1)]
            axis.set_xticks(ticks, [str(tick) for tick in ticks])
            axis.minorticks_off()
        figure.axes[0].set_ylabel("items a second, over stored")
        handles: dict[str, Any] = {}
        for axis in figure.axes:
            handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3)
        svg = svg_of(figure)
    if not said:
        return None
    one = next(iter(panels[0][1]))
    note = (
        f"{circumstances(one, batch=False)}. Each with the largest batch that fits; over the reversible network under stored with"
        " its own. Bars: intervals of 95 %. Open: the ordinary network of the pair; pale: unstable."
        f"{first_of(count, MOST_PANELS)}"
    )
    return Figure(
        "Speed against depth within the same memory", "speed-against-depth", svg, f"{'; '.join(said)}.", (note,)
    )


def _base(cases: Sequence[Case]) -> Case:
    return next((case for case in cases if not is_ordinary(case)), cases[0]).stored()


def _draw(
    axis: Any, evidence: Evidence, line: Case, points: Sequence[tuple[int, Case]], base: Mapping[int, Case]
) -> list[str]:
    """Draws one network under one strategy; returns it in words."""
    name = f"{title_of(line.model)} {strategy_of(line)}"
    found = [(d, case, ratio) for d, case in points if (ratio := speed_ratio(evidence, case, base[d])) is not None]
    if not found:
        return []
    look = look_of(line)
    fill = "none" if is_ordinary(line) else None
    depths = [depth for depth, _, _ in found]
    middle = [ratio.value for _, _, ratio in found]
    low, high = ([getattr(ratio, end) or ratio.value for _, _, ratio in found] for end in ("low", "high"))
    reach = [[m - a for m, a in zip(middle, low, strict=True)], [b - m for m, b in zip(middle, high, strict=True)]]
    axis.errorbar(depths, middle, yerr=np.maximum(reach, 0), color=look.colour, linestyle=look.dashes, linewidth=1.3)
    words = [f"{name}, {depth} blocks, batch {batch_of(evidence, case)}: {ratio}" for depth, case, ratio in found]
    for i, (_, _, ratio) in enumerate(found):
        alpha = 0.35 if ratio.unstable else 1.0
        dots(
            axis,
            depths[i : i + 1],
            middle[i : i + 1],
            look,
            words[i : i + 1],
            markersize=6,
            markerfacecolor=fill,
            alpha=alpha,
        )
    axis.plot([], [], look.marker, linestyle=look.dashes, color=look.colour, markerfacecolor=fill, label=name)
    return words
