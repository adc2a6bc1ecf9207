"""Where the level of a metric changes in a sequence of runs: PELT with the linear kernel (Killick et al. 2012; ``ruptures``).

Levels are told apart in logarithms, since times scatter by factors. A lone strange run is no change: the sequence is smoothed by
a running median of five, whose steps stay where they are, and a level lasts at least three runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from revbench.compare.growth import rank_sum

LEAST_RUNS = 3  # of a level
LEAST_FOR_NOISE = 13  # runs: of fewer, no level is apart from another by more than chance
_SMOOTHED_OVER = 5  # runs
_PENALTY = 4.0  # of a further level, in squared deviations and per logarithm of the number of runs
_SIGNIFICANCE = 1e-4  # of the levels beside a change, by rank
_RAREST = 2e-3  # what complete separation must be, where so few runs can't be rarer than `_SIGNIFICANCE`

Array = NDArray[np.float64]


def levels_of_exact(values: Sequence[float], tolerance: float) -> list[int]:
    """Returns where a metric that does not scatter leaves its level: every difference is a change.

    Args:
        values: of the runs, in their order.
        tolerance: the share of the level within which a value is still on it.
    """
    found: list[int] = []
    level = values[0] if values else 0.0
    for i, value in enumerate(values):
        if abs(value - level) > tolerance * abs(level):
            found.append(i)
            level = value
    return found


def levels_of_noisy(values: Sequence[float], least_change: float) -> list[int]:
    """Returns where a metric that scatters from run to run changes its level.

    A change is told if it is larger than `least_change`, if PELT finds it worth its penalty, and if the values before and after
    it differ by rank (Mann and Whitney 1947). Between steps the noise is taken to be the same; its deviation is that of the
    differences of neighbours, by their median.

    Args:
        values: of the runs, in their order, all positive.
        least_change: the share by which levels must differ.

    Returns:
        The index of the first run of each level but the first; nothing for fewer than `LEAST_FOR_NOISE` runs.
    """
    import ruptures

    if len(values) < LEAST_FOR_NOISE or min(values) <= 0:
        return []
    logs: Array = np.log(np.asarray(values, dtype=np.float64))
    spread = max(_deviation(logs), math.log1p(least_change) / 4)  # what mostly repeats has none
    smooth = ndimage.median_filter(logs, size=_SMOOTHED_OVER, mode="nearest") / spread
    search = ruptures.KernelCPD(kernel="linear", min_size=LEAST_RUNS).fit(smooth.reshape(-1, 1))
    ends = search.predict(pen=_PENALTY * math.log(len(logs)))[:-1]
    return _kept(logs, [int(end) for end in ends], math.log1p(least_change))


def _deviation(logs: Array) -> float:
    """Returns the deviation of the noise, which no step of the level makes larger."""
    return float(stats.median_abs_deviation(np.diff(logs), scale="normal")) / math.sqrt(2)


def _kept(logs: Array, starts: Sequence[int], least: float) -> list[int]:
    """Drops changes that are too small or too uncertain, the least certain first, since what stands beside it grows then."""
    kept = list(starts)
    while kept:
        edges = [0, *kept, len(logs)]
        sides = [(logs[a:b], logs[b:c]) for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)]
        certain = [_certainty(before, after, least) for before, after in sides]
        worst = int(np.argmax(certain))
        if certain[worst] <= 1.0:
            return kept
        del kept[worst]
    return []


def _certainty(before: Array, after: Array, least: float) -> float:
    """Returns a number that is at most 1 for a change that is told: the smaller, the more certain."""
    rarest = 2 / math.comb(len(before) + len(after), len(before))  # what complete separation comes to
    if rarest > _RAREST or abs(float(np.median(after) - np.median(before))) <= least:
        return math.inf
    p = 2 * min(rank_sum(before, after), rank_sum(after, before))
    return p / max(_SIGNIFICANCE, rarest)
