"""Whether values of two runs grew beyond chance: a test that holds its size where spreads differ and outliers occur.

Two tests must agree, both one-sided and at `SIGNIFICANCE`:

- Welch's t of the logarithms (errors scatter by factors) with the degrees of freedom of the smaller sample, n - 1, by which it
  never errs too often where the two spread differently (Hsu 1938; Scheffé 1970). Pooled variances would: a wide sample beside
  many narrow ones gave false alarms in one case of ten.
- The rank sum test (Mann and Whitney 1947), which no outlier and no skewness misleads.

Where even the largest values all on one side would not be rare enough for the second, nothing can be told: 30 draws need
4 others, 15 draws 5, and 6 draws 11.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

SIGNIFICANCE = 1e-4  # some thirty metrics a run may raise no false alarm in hundreds of runs
POWER = 0.9  # with which a growth by the factor that is named is found
_EXACT = 10_000  # up to so many pairs the rank sum test is exact


def grew(old: Sequence[float], new: Sequence[float]) -> tuple[bool, float]:
    """Tells whether values grew by more than chance.

    Args:
        old, new: positive numbers; those that are 0 count as a tenth of the smallest that is not.

    Returns:
        Whether they did, and the factor by which they must grow to be found in 90 of 100 cases; infinite if none is.
    """
    if not can_tell(len(old), len(new)):
        return False, math.inf
    if sorted(old) == sorted(new):  # zeros among them
        return False, 1.0
    least = min(value for value in (*old, *new) if value > 0) / 10
    a, b = (np.log(np.maximum(np.asarray(values, dtype=np.float64), least)) for values in (old, new))
    told, factor = told_by_moments(
        float(b.mean() - a.mean()), len(a), float(a.var(ddof=1)), len(b), float(b.var(ddof=1)), SIGNIFICANCE
    )
    return told and rank_sum(a, b) <= SIGNIFICANCE, factor


def can_tell(n: int, m: int) -> bool:
    """Tells whether so many draws a side could tell anything: complete separation by chance is rare enough."""
    return min(n, m) > 1 and 1 / math.comb(n + m, n) <= SIGNIFICANCE


def told_by_moments(
    difference: float, n: int, variance_n: float, m: int, variance_m: float, significance: float
) -> tuple[bool, float]:
    """Tells of two means of logarithms whether the second is larger beyond chance, by Welch's t with the smaller sample's
    freedom.

    Args:
        difference: of the means.
        n, variance_n, m, variance_m: of the samples, at least two values each.
        significance: one-sided.

    Returns:
        Whether it is, and the factor that is found in 90 of 100 cases.
    """
    freedom = min(n, m) - 1
    error = math.sqrt(variance_n / n + variance_m / m)
    critical, detectable = _bounds(freedom, significance)
    return difference > critical * error, math.exp(min(detectable * error, 700.0))


def rank_sum(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the probability that chance puts b as high above a."""
    if b.min() > a.max():
        return 1 / math.comb(len(a) + len(b), len(a))
    from scipy import stats  # takes a second to import

    ties = len(np.unique(np.concatenate((a, b)))) < len(a) + len(b)
    method = "asymptotic" if ties or len(a) * len(b) > _EXACT else "exact"
    return float(stats.mannwhitneyu(b, a, alternative="greater", method=method).pvalue)


@functools.cache
def _bounds(freedom: int, significance: float) -> tuple[float, float]:
    """Returns in standard errors what a difference must exceed, and which difference does so in `POWER` of cases."""
    from scipy import optimize, stats  # take a second to import

    critical = -float(special.stdtrit(freedom, significance))

    def missing(shift: float) -> float:
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    top = critical
    while missing(top) < 0:
        top *= 1.5
    return critical, float(optimize.brentq(missing, 0.0, top, xtol=1e-3 * critical))
