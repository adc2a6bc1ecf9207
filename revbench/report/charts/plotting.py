"""matplotlib, imported where no stranger's ``matplotlibrc`` lies.

matplotlib reads the file of that name in the current folder as soon as it is imported: it could be a pipe, which is waited for,
and in some versions holds Python that is evaluated.
"""

from __future__ import annotations

import os

_HERE = os.open(".", os.O_RDONLY)
os.chdir("/")
try:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatter, LogLocator, NullLocator
finally:
    os.fchdir(_HERE)
    os.close(_HERE)

__all__ = ["Canvas", "Line2D", "LogFormatter", "LogLocator", "NullLocator", "mpl"]
