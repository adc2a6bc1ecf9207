"""Memory over one training step, by what it is for: measured in the report, predicted by ``revbench estimate --plot``."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import is_ordinary, paired
from revbench.errors import UserError
from revbench.probes.declared import MEMORY
from revbench.report.charts.canvas import Array, canvas, first_of, svg_of, with_tip
from revbench.report.charts.plotting import Line2D
from revbench.report.colours import ACTIVATIONS, GRADIENTS, INK, PARAMETERS, SOFT, STATE
from revbench.report.document import Figure, name_of
from revbench.report.evidence import Evidence
from revbench.results.files import write_atomically
from revbench.units import human_bytes

if TYPE_CHECKING:
    from revbench.prediction import Prediction

PHASE_WIDTHS = {"forward": 1.0, "backward": 2.0, "optimizer": 0.45}
_MARKS = {"forward": "forward", "backward": "backward", "optimizer": "opt."}
_COLOURS = {
    "parameters": PARAMETERS, "optimizer state": STATE, "gradients": GRADIENTS,
    "activations, batch and temporaries": ACTIVATIONS, "all live tensors": ACTIVATIONS,
}  # fmt: skip
_MOST_PANELS = 6
_IN_A_ROW = 3
_MOST_POINTS = 120  # a panel; two inches show no more
_SHOWN = ("stored", "reconstructed", "checkpointed", "recursive")


@dataclass(frozen=True)
class Panel:
    """One step: its columns as `LiveTensors.timeline` gives them, and the bytes that are alive throughout."""

    case: Case
    columns: Mapping[str, Sequence[Any]]
    parameter_bytes: float
    optimizer_state_bytes: float


def memory_figures(evidence: Evidence) -> Iterator[Figure]:
    """Draws for each pair memory over one step under stored, reconstructed, checkpointed and recursive, on one scale."""
    for group in paired(evidence.cases(MEMORY)):
        panels = []
        for case in group:
            columns = evidence.series(case, MEMORY)
            if _is_whole(columns) and case.strategy in _SHOWN and (not is_ordinary(case) or case.strategy == "stored"):
                sizes = (evidence.value(case, MEMORY[f"{name}_bytes"]) for name in ("parameter", "optimizer_state"))
                panels.append(Panel(case, columns, *(size.median if size else 0.0 for size in sizes)))
        if panels:
            count, panels = len(panels), panels[:_MOST_PANELS]
            names = " and ".join(dict.fromkeys(network_name(p.case) for p in panels))
            with _canvas_for(panels) as (figure, axes):
                peaks = _draw(figure, axes, panels)
                svg = svg_of(figure)
            note = (
                f"{circumstances(panels[0].case)}. Live tensors after each operation, one on top of the other; each phase is"
                " drawn to a fixed width, and all panels to one scale. The dot is the peak."
                f"{first_of(count, _MOST_PANELS)}"
            )
            title = f"Memory over one training step: {names}"
            yield Figure(title, name_of(f"memory {names}"), svg, f"Peaks: {'; '.join(peaks)}.", (note,))


def draw_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Draw predicted steps side by side into a file, whose ending says its format.

    Raises:
        UserError: more steps than one picture can show, or a file that can't be written.
    """
    if not 1 <= len(predictions) <= _MOST_PANELS:
        raise UserError(f"--plot draws up to {_MOST_PANELS} steps, not {len(predictions)}; name some with --strategy")
    panels = [Panel(p.case, p.step.timeline, p.step.parameter_bytes, p.step.optimizer_state_bytes) for p in predictions]
    with _canvas_for(panels) as (figure, axes):
        _draw(figure, axes, panels)
        first = predictions[0].case
        figure.suptitle(f"Predicted memory over one training step ({circumstances(first)}, {first.optimizer})", size=10)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=path.suffix[1:], dpi=200)
        try:
            write_atomically(path, drawn.getvalue())
        except OSError as error:
            raise UserError(f"can't write {path}: {error.strerror or error}") from error


def _canvas_for(panels: Sequence[Panel]) -> canvas:
    rows = -(-len(panels) // _IN_A_ROW)
    return canvas(2.15 * rows + 0.5, min(len(panels), _IN_A_ROW), rows=rows, one_scale=True)


def _draw(figure: Any, axes: Any, panels: Sequence[Panel]) -> list[str]:
    """Draw the panels and their legend; returns their peaks in words."""
    peaks = []
    all_axes = list(np.ravel(axes))
    for axis in all_axes[len(panels) :]:
        axis.set_visible(False)
    layers = [_layers(panel) for panel in panels]
    highest = max(float(sum(found.values()).max()) for found in layers)  # type: ignore[union-attr]
    unit, factor = ("GiB", 2**30) if highest >= 2**30 else ("MiB", 2**20)
    several = len({panel.case.model for panel in panels}) > 1
    for axis, panel, found in zip(all_axes, panels, layers, strict=False):
        total: Array = np.sum(list(found.values()), axis=0)
        shown = np.append(_highest(total, _MOST_POINTS), len(total) - 1)
        x, total = _positions(panel.columns)[shown], total[shown]
        x[-1] = sum(PHASE_WIDTHS.values())  # what is left at the end is there until the next step
        found = {name: values[shown] for name, values in found.items()}
        colours = [_COLOURS[name] for name in found]
        areas = axis.stackplot(x, *(y / factor for y in found.values()), colors=colours, linewidth=0, step="post")
        for area, (name, values) in zip(areas, found.items(), strict=True):
            with_tip(area, f"{name}: at most {human_bytes(values.max())}")
        at = int(np.argmax(total))
        peaks.append(f"{network_name(panel.case)} {strategy_of(panel.case)} {human_bytes(total[at])}")
        axis.plot(x[at], total[at] / factor, "o", color=INK, markersize=4, zorder=5)
        left = x[at] < 0.7 * sum(PHASE_WIDTHS.values())
        axis.annotate(
            human_bytes(total[at]), (x[at], total[at] / factor), xytext=(6 if left else -6, 3), textcoords="offset points",
            ha="left" if left else "right", va="bottom", fontsize=8.5, fontweight="bold",
        )  # fmt: skip
        edge = 0.0
        for phase, width in PHASE_WIDTHS.items():
            if edge:
                axis.axvline(edge, color=SOFT, linewidth=0.7)
            axis.text(
                edge + width / 2, 1.0, _MARKS[phase], transform=axis.get_xaxis_transform(), ha="center", va="bottom",
                color=SOFT, fontsize=7.5,
            )  # fmt: skip
            edge += width
        axis.set(xlim=(0, edge), ylim=(0, highest / factor * 1.2), xticks=[])
        name = strategy_of(panel.case).replace(", ", ",\n")
        model = network_name(panel.case)
        axis.set_title(f"{model}\n{name}" if several else name, pad=13)
        axis.grid(axis="x", visible=False)
    for axis in all_axes[::_IN_A_ROW]:
        axis.set_ylabel(f"live tensors, {unit}")
    names = list(dict.fromkeys(name for found in layers for name in found))
    handles = [Line2D([], [], color=_COLOURS[name], linewidth=7) for name in reversed(names)]
    figure.legend(
        handles, list(reversed(names)), loc="outside lower center", ncols=len(names), handlelength=0.8, fontsize=8
    )
    return peaks


def _highest(total: Array, points: int) -> npt.NDArray[np.intp]:
    """Returns of each stretch of operations the one with the most memory: what a picture so many points wide can show."""
    edges = np.unique(np.linspace(0, len(total), points + 1).astype(np.intp))
    found: npt.NDArray[np.intp] = np.asarray([a + int(np.argmax(total[a:b])) for a, b in itertools.pairwise(edges)])
    return found


def _layers(panel: Panel) -> dict[str, Array]:
    """Returns what is alive after each operation, by what it is for; a series that does not say so is one layer."""
    live = np.asarray(panel.columns["live_bytes"], dtype=np.float64)
    if "gradient_bytes" not in panel.columns:
        return {"all live tensors": live}
    gradients = np.asarray(panel.columns["gradient_bytes"], dtype=np.float64)
    parameters, state = (np.full_like(live, value) for value in (panel.parameter_bytes, panel.optimizer_state_bytes))
    return {
        "parameters": parameters, "optimizer state": state, "gradients": gradients,
        "activations, batch and temporaries": live - parameters - state - gradients,
    }  # fmt: skip


def _is_whole(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Tells whether a series, which may come from a stranger, has what is drawn."""
    names = [name for name in ("live_bytes", "gradient_bytes") if name in columns]
    numbers = [value for name in names for value in columns[name]]
    return (
        "live_bytes" in names
        and len(columns["live_bytes"]) > 0
        and all(isinstance(value, (int, float)) for value in numbers)
        and all(isinstance(phase, str) and phase in PHASE_WIDTHS for phase in columns.get("phase", [None]))
    )


def _positions(columns: Mapping[str, Sequence[Any]]) -> Array:
    """Returns where on the axis each operation stands."""
    phases = np.asarray(columns["phase"])
    x = np.zeros(len(phases))
    edge = 0.0
    for phase, width in PHASE_WIDTHS.items():
        at = phases == phase
        x[at] = edge + width * (np.arange(at.sum()) + 1) / max(int(at.sum()), 1)
        edge += width
    return x
