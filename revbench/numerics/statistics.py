"""What a handful of draws says of a quantity: its quantiles, and how sure the median is, whatever its distribution."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95
ENOUGH_DRAWS = 30  # fewer give no reliable quantiles (the 5 % quantile lies between the two smallest of 30)
QUANTILE_DRAWS = 19  # below so many the 5 % quantile lies outside of what was drawn
INTERVAL_DRAWS = 6  # below so many even smallest and largest enclose the median in fewer than 95 of 100 cases


@dataclass(frozen=True)
class Summary:
    """Summarises the finite values of a quantity over draws.

    Attributes:
        median: of the values.
        smallest, largest: of the values.
        q05, q95: quantiles at the positions p·(n + 1), on average p of the distribution lies below them (Weibull's; Hyndman and
            Fan 1996, type 6); None below `QUANTILE_DRAWS`.
        low, high: an interval that encloses the distribution's median in at least 95 of 100 cases, whatever the distribution:
            the order statistics whose binomial probability is that (David and Nagaraja 2003, section 7.1); None below
            `INTERVAL_DRAWS`.
    """

    median: float
    smallest: float
    largest: float
    q05: float | None
    q95: float | None
    low: float | None
    high: float | None


def summarise_draws(values: Sequence[float]) -> Summary | None:
    """Returns the summary of some values; None of none."""
    found = np.sort(np.asarray([v for v in values if np.isfinite(v)], dtype=np.float64))
    if not found.size:
        return None
    q05 = q95 = low = high = None
    if found.size >= QUANTILE_DRAWS:
        q05, q95 = (float(q) for q in np.quantile(found, (0.05, 0.95), method="weibull"))
    if found.size >= INTERVAL_DRAWS:
        left_out = _left_out(found.size)
        low, high = float(found[left_out]), float(found[-1 - left_out])
    return Summary(float(np.median(found)), float(found[0]), float(found[-1]), q05, q95, low, high)


def why_missing(key: str, draws: int) -> str:
    """Returns why a quantile or an end of an interval is None."""
    if key in ("q05", "q95"):
        return f"{draws} draws; a quantile of 5 % needs {QUANTILE_DRAWS}"
    return f"{draws} draws; an interval of the median needs {INTERVAL_DRAWS}"


@functools.cache
def _left_out(count: int) -> int:
    """Returns how many of so many sorted values may be left out at each end of the median's interval."""
    tails = 2 * special.bdtr(np.arange(count // 2), count, 0.5)
    return int(np.searchsorted(tails, 1 - CONFIDENCE, side="right")) - 1
