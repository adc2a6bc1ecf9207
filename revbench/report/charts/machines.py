"""Machines side by side: time against memory, and what reconstruction costs on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from revbench.case import Case
from revbench.case.labels import strategy_of
from revbench.probes.declared import MEMORY, TIME
from revbench.report.charts.canvas import canvas, first_of, svg_of, with_tip
from revbench.report.charts.plotting import Line2D, LogLocator, NullLocator
from revbench.report.colours import ON_PALE, SOFT, look_of
from revbench.report.document import Figure
from revbench.report.parts import Part

_MARKERS = "osD^vP*X<>"
MOST_PANELS = 4
_Points = list[tuple[Part, Case, float, float]]


def time_against_memory(parts: Sequence[Part], groups: Mapping[str, Sequence[tuple[Part, Case]]]) -> Figure | None:
    """Draws a dot for each machine and strategy, a panel for each network: down and to the left is better.

    Args:
        parts: all machines.
        groups: what was measured of each network, by what is said of the network.
    """
    panels: list[tuple[str, _Points]] = []
    for name, found in groups.items():
        points: _Points = []
        for part, case in found:
            step, peak = (
                part.evidence.value(case, TIME["step_seconds"]),
                part.evidence.value(case, MEMORY["peak_bytes"]),
            )
            if step is not None and peak is not None:
                points.append((part, case, peak.median / 2**20, 1e3 * step.median / case.batch_size))
        if len(points) > 1:
            panels.append((name, points))
    count, panels = len(panels), panels[:MOST_PANELS]
    if not panels:
        return None
    markers = {part.name: _MARKERS[i % len(_MARKERS)] for i, part in enumerate(parts)}
    rows = -(-len(panels) // 2)
    said = []
    with canvas(3.0 * rows + 0.8, min(len(panels), 2), rows=rows) as (figure, found_axes):
        axes = np.ravel(found_axes)
        shapes: dict[str, Any] = {}
        colours: dict[str, Any] = {}
        for axis, (name, points) in zip(axes, panels, strict=False):
            for part, case, mebibytes, milliseconds in points:
                marker, strategy = markers[part.name], strategy_of(case)
                words = f"{part.name}, {strategy}: {mebibytes:,.0f} MiB, {milliseconds:.3g} ms"
                colour = look_of(case).colour
                with_tip(axis.plot(mebibytes, milliseconds, marker, color=colour, markersize=8, alpha=0.85), words)
                shapes[part.name] = Line2D([], [], marker=marker, color=SOFT, markersize=8, linestyle="none")
                colours[strategy] = Line2D([], [], color=colour, linewidth=5)
                said.append(f"{name}, {words}")
            axis.set(title=name, xlabel="peak memory of a step, MiB", ylabel="ms an item", xscale="log", yscale="log")
            for scale in (axis.xaxis, axis.yaxis):
                scale.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                scale.set_major_formatter("{x:g}")
                scale.set_minor_locator(NullLocator())
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        legend = {**shapes, **colours}
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=3)
        svg = svg_of(figure)
    note = "Both scales are logarithmic; down and to the left is better. The shape is the machine, the colour the strategy."
    note += first_of(count, MOST_PANELS)
    return Figure("Time against memory on each machine", "machines", svg, f"{'; '.join(said)}.", (note,))


def cost_of_reconstruction(parts: Sequence[Part], groups: Mapping[str, Sequence[tuple[Part, Case]]]) -> Figure | None:
    """Draws how many times as long a reconstructed step takes as a stored one, machines by networks; unstable ratios are left
    blank."""
    cells: dict[tuple[str, str], float] = {}
    unstable: set[tuple[str, str]] = set()
    for name, found in groups.items():
        for part, case in found:
            if case.strategy != "reconstructed" or strategy_of(case) != "reconstructed":
                continue
            ratio = part.evidence.time_ratio(case, case.stored())
            if ratio is not None and ratio.unstable:
                unstable.add((name, part.name))
            elif ratio is not None:
                cells[name, part.name] = ratio.value
    if not cells:
        return None
    there = {*cells, *unstable}
    columns = [name for name in groups if any((name, part.name) in there for part in parts)]
    rows = [part.name for part in parts if any((name, part.name) in there for name in columns)]
    values = np.array([[cells.get((column, row), np.nan) for column in columns] for row in rows])
    words = [
        ["unstable" if (column, row) in unstable else f"{cells[column, row]:.2f} ×" if (column, row) in cells else ""
         for column in columns] for row in rows
    ]  # fmt: skip
    import seaborn as sns  # takes a second to import; matplotlib, which reads files, is there

    with canvas(0.7 + 0.42 * len(rows)) as (figure, axis):
        top = max(2.0, float(np.nanmax(values)))
        sns.heatmap(
            values, ax=axis, cmap=sns.color_palette("light:#2f7a8c", as_cmap=True), vmin=1.0, vmax=top, linewidths=1, cbar=False,
            xticklabels=[column.replace(", ", "\n") for column in columns],
            yticklabels=[row.replace(" (", "\n(") for row in rows],
        )  # fmt: skip
        for i, row in enumerate(words):
            for j, word in enumerate(row):
                known, dark = not np.isnan(values[i, j]), values[i, j] > 1 + 0.6 * (top - 1)
                colour = "white" if dark else ON_PALE if known else SOFT
                axis.text(j + 0.5, i + 0.5, word, ha="center", va="center", color=colour, fontsize=8.5)
        axis.tick_params(axis="both", rotation=0)
        axis.grid(visible=False)
        svg = svg_of(figure)
    said = "; ".join(f"{row} on {column} {value:.2f}" for (row, column), value in cells.items())
    note = (
        "How many times as long a step takes with reconstructed activations as with stored ones. 4/3 is theory. Empty: not"
        " measured."
    )
    return Figure("What reconstruction costs in time", "machines-cost", svg, f"{said}.", (note,))
