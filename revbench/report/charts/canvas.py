"""The canvas that every picture of the report is drawn on, and the colours that mean the same in all of them."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from revbench.case import Case
from revbench.case.labels import strategy_of
from revbench.report.charts.plotting import Canvas, mpl, sns

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
    "text.parse_math": False,  # a stranger's name may hold a dollar
}  # fmt: skip

Array = npt.NDArray[np.float64]


def colour_of(case: Case) -> Any:
    """Returns a way's colour, the same in every figure."""
    return COLOURS.get(strategy_of(case), COLOURS[case.strategy])


class canvas:
    """A figure in the report's style; side by side, its axes may share their vertical scale.

    Nothing of a ``matplotlibrc`` counts: it is also looked for in the current folder, and can have LaTeX run on all text.
    Figures in files may be of any size: what overflows is not drawn.
    """

    def __init__(
        self, width: float, height: float, columns: int = 1, *, rows: int = 1, one_scale: bool = False
    ) -> None:
        self._size = (width, height, rows, columns)
        self._one_scale = one_scale

    def __enter__(self) -> tuple[Canvas, Any]:
        width, height, rows, columns = self._size
        self._style = ExitStack()
        self._style.enter_context(mpl.rc_context())
        self._style.enter_context(np.errstate(all="ignore"))
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        figure = Canvas(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, sharey=self._one_scale)

    def __exit__(self, *exception: Any) -> None:
        self._style.close()


def svg_of(figure: Canvas) -> str:
    """Returns the picture as text, the same whenever it is drawn."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
