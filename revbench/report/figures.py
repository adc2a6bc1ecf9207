"""The report's pictures, drawn from series files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import seaborn as sns
from matplotlib.figure import Figure as Canvas

from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.report.document import Figure
from revbench.report.evidence import Evidence, paired
from revbench.titles import circumstances, strategy_of, title_of

_PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "stored": _PALETTE[0], "reconstructed": _PALETTE[3], "reconstructed, rest recomputed": _PALETTE[1],
    "checkpointed": _PALETTE[2], "recursive": _PALETTE[4], "torch_checkpoint": _PALETTE[2], "torch_selective": _PALETTE[4],
    "torch_budget": _PALETTE[6], "torch_offload": _PALETTE[9], "reconstructed, last 1 kept": _PALETTE[5],
    "reconstructed, certified": _PALETTE[8],
}  # fmt: skip
RESNET_COLOUR = (0.35, 0.35, 0.35)
_STYLE: Any = {
    "svg.fonttype": "path", "svg.hashsalt": "revbench", "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4", "legend.frameon": False,
    "font.family": "DejaVu Sans", "axes.axisbelow": True,
}  # fmt: skip

Array = npt.NDArray[np.float64]


def training_figures(evidence: Evidence) -> list[Figure]:
    """For each trained pair: cross-entropy, and error (training dotted, validation solid); the null's spread shaded."""
    figures = []
    for group in paired(case.replace(ulp=0) for case in evidence.cases("training")):
        members = [(c, evidence.series(c, "training")) for c in dict.fromkeys(group)]
        members = [(case, columns) for case, columns in members if columns]
        nulls = [
            (c, evidence.series(c, "training"))
            for c in evidence.cases("training")
            if c.ulp and c.replace(ulp=0) in [member for member, _ in members]
        ]
        if not members:
            continue
        twins = {c.replace(ulp=0) for c, _ in nulls}
        spread = [columns for case, columns in [*members, *nulls] if (case.replace(ulp=0) in twins) and columns]
        with canvas(9.6, 3.6, 2) as (figure, (left, right)):
            for case, columns in members:
                label = f"{title_of(case.model)} {case.strategy}".replace("$", r"\$")
                colour = RESNET_COLOUR if is_resnet(case) else COLOURS[case.strategy]
                steps = _column(columns, "step")
                window = max(len(steps) // 20, 1)
                left.plot(steps, _smooth(_column(columns, "loss"), window), color=colour, linewidth=1.4, label=label)
                error = _smooth(_column(columns, "error"), window) * 100
                right.plot(steps, error, ":", color=colour, linewidth=1.3)
                validation = _column(columns, "validation_error") * 100
                at = ~np.isnan(validation)
                right.plot(steps[at], validation[at], "-o", color=colour, linewidth=1.4, markersize=3.5, label=label)
            if len(spread) > 1:
                _shade(left, spread, "loss", 1.0)
                _shade(right, spread, "error", 100.0)
            left.set(title="Training cross-entropy", xlabel="step", ylabel="nats")
            right.set(title="Error, dotted training, solid validation", xlabel="step", ylabel="%", ylim=(0, 100))
            left.legend(loc="best")
            svg = svg_of(figure)
        first = members[0][0]
        names = " and ".join(dict.fromkeys(title_of(c.model) for c, _ in members))
        window_words = f"Training curves are running means over {window} steps." if window > 1 else ""
        null_words = (
            f" Shaded: the spread of the stored RevNet and {len(nulls)} null run{'s' if len(nulls) > 1 else ''}"
            " that differ from it by one unit in the last place of one weight."
        )
        note = f"{first.data}, {circumstances(first)}. {window_words}{null_words if len(spread) > 1 else ''}"
        alternative = "; ".join(
            f"{title_of(c.model)} {c.strategy} ends at validation error {s.median:.1%}"
            for c, _ in members
            if (s := evidence.value(c, "training", "validation_error"))
        )
        figures.append(Figure(f"Training curves: {names} on {first.data}", "training", svg, alternative, (note,)))
    return figures


def colour_of(case: Case) -> Any:
    """A way's colour, the same in every figure."""
    return COLOURS.get(strategy_of(case), COLOURS[case.strategy])


def is_resnet(case: Case) -> bool:
    """Whether a case is of a network of the catalogue that has no reversible block."""
    known = CATALOGUE.get(case.model)
    return known is not None and known.family == "resnet"


def _column(columns: dict[str, list[Any]], name: str) -> Array:
    return np.asarray([np.nan if value is None else value for value in columns[name]], dtype=np.float64)


def _smooth(values: Array, window: int) -> Array:
    """The mean of the last `window` values, of fewer at the beginning."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - window, 0)
    smoothed: Array = (total[index] - total[first]) / (index - first)
    return smoothed


def _shade(axes: Any, members: Sequence[dict[str, list[Any]]], name: str, factor: float) -> None:
    window = max(len(members[0]["step"]) // 20, 1)
    length = min(len(columns["step"]) for columns in members)
    curves = np.stack([_smooth(_column(columns, name), window)[:length] for columns in members]) * factor
    axes.fill_between(
        _column(members[0], "step")[:length],
        curves.min(0),
        curves.max(0),
        color=COLOURS["stored"],
        alpha=0.25,
        linewidth=0,
    )


class canvas:
    """A figure in the report's style, closed at the end; side by side, its axes may share their vertical scale."""

    def __init__(self, width: float, height: float, columns: int = 1, *, one_scale: bool = False) -> None:
        self._size = (width, height, columns)
        self._one_scale = one_scale

    def __enter__(self) -> tuple[Canvas, Any]:
        width, height, columns = self._size
        self._style = mpl.rc_context(_STYLE)
        self._style.__enter__()
        self._canvas, axes = plt.subplots(
            1, columns, figsize=(width, height), layout="constrained", sharey=self._one_scale
        )
        return self._canvas, axes

    def __exit__(self, *exception: Any) -> None:
        plt.close(self._canvas)
        self._style.__exit__(*exception)


def svg_of(figure: Canvas) -> str:
    """The picture as text, the same whenever it is drawn."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
