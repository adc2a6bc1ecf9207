"""What a handful of draws says of a quantity: its quantiles, and how sure the median is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
ENOUGH_DRAWS = 30  # fewer give no reliable quantiles (the 5 % quantile lies between the two smallest of 30)
_RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """Of the finite values of a quantity over draws.

    Attributes:
        median, q05, q95: quantiles, interpolated linearly.
        low, high: bootstrap interval of the median, 95 %, by percentiles (Efron and Tibshirani 1993, section 13.3); with
            fewer than 6 draws the smallest and the largest, since even these cover the median less often than that.
    """

    median: float
    q05: float
    q95: float
    low: float
    high: float


def summarise_draws(values: Sequence[float]) -> Summary | None:
    """The summary of some values, the same whenever it is computed; None of none."""
    found = np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64)
    if not found.size:
        return None
    q05, median, q95 = (float(q) for q in np.quantile(found, (0.05, 0.5, 0.95)))
    low, high = float(found.min()), float(found.max())
    if found.size >= 6 and low < high:
        interval = stats.bootstrap(
            (found,), np.median, confidence_level=CONFIDENCE, n_resamples=_RESAMPLES, method="percentile", rng=0
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    return Summary(median, q05, q95, low, high)
