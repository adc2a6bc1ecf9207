"""The canvas that every picture of the report is drawn on."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from revbench.report.charts.plotting import Canvas, LogFormatter, mpl
from revbench.report.colours import GRID, INK, Look
from revbench.terminal import plain

_STYLE: Any = {
    "svg.fonttype": "path", "svg.hashsalt": "revbench", "font.family": "DejaVu Sans", "font.size": 8.5, "axes.titlesize": 9,
    "axes.labelsize": 8.5, "legend.fontsize": 8, "axes.titleweight": "bold", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "legend.frameon": False, "axes.axisbelow": True,
    "text.parse_math": False,  # a stranger's name may hold a dollar
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",  # the page's own, light or dark
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
}  # fmt: skip
_TIP = "tip:"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WIDTH = 7.1  # inches: a page's text, so that letters in a picture are as large as those around it

Array = npt.NDArray[np.float64]


class canvas:
    """A figure in the report's style, as wide as a page's text; side by side, its axes may share their vertical scale.

    Nothing of a ``matplotlibrc`` counts: it is also looked for in the current folder, and can have LaTeX run on all text.
    Figures in files may be of any size: what overflows is not drawn.
    """

    def __init__(
        self, height: float, columns: int = 1, *, rows: int = 1, one_scale: bool = False, width: float = WIDTH
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


def with_tip(artists: Any, text: str) -> None:
    """Give what was drawn the words that stand there while somebody points at it."""
    for artist in artists if isinstance(artists, (list, tuple)) else [artists]:
        artist.set_gid(f"{_TIP}{plain(' '.join(text.split()))}")


def dots(axes: Any, x: Iterable[float], y: Iterable[float], look: Look, words: Iterable[str], **style: Any) -> None:
    """Draw points of a line, each with its words."""
    for at, value, text in zip(x, y, words, strict=True):
        with_tip(axes.plot(at, value, look.marker, color=look.colour, **style), text)


def _rounded(path: str) -> str:
    """Returns a path in hundredths of a point, finer than anybody sees; its lines are none of the picture."""
    return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(path.split()))


def power_of_ten(value: float, _: object = None) -> str:
    """Returns what stands at a mark of a logarithmic scale: matplotlib's own are formulas, which are not set here."""
    if value <= 0:
        return f"{value:g}"
    exponent = math.log10(value)
    if abs(exponent - round(exponent)) > 1e-9:
        return ""
    return f"{value:g}" if 0 <= exponent <= 3 else f"10{str(round(exponent)).translate(_RAISED)}"


def svg_of(figure: Canvas) -> str:
    """Returns the picture as text, the same whenever it is drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_formatter(), LogFormatter):
                axis.set_major_formatter(power_of_ten)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(rf""" id=(["']){_TIP}(.*?)\1>""", r"><title>\2</title>", text)
    text = re.sub(r' d="([^"]*)"', lambda found: f' d="{_rounded(found[1])}"', text)
    text = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    linked = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in linked else "", text)


def first_of(count: int, most: int) -> str:
    """Returns the sentence of a note that tells how many of ``count`` panels are not drawn; nothing if all are."""
    return f" The first {most} of {count} are drawn; the table has all." if count > most else ""
