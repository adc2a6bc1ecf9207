"""A change of a time against SciPy's own tests, and how many launches would tell one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from revbench.compare.times import LEAST_LAUNCHES, SIGNIFICANCE, Change, change_of


def of_pairs(logs: list[float]) -> Change:
    ratios = list(np.exp(logs))
    return change_of([1.0] * len(logs), ratios, in_turn=True, ratios=ratios)


def with_moments(count: int, mean: float, scatter: float) -> list[float]:
    """Values that have just this mean and this standard deviation."""
    values = np.random.default_rng(count).normal(size=count)
    return list(mean + scatter * (values - values.mean()) / values.std(ddof=1))


@pytest.mark.parametrize("count", [5, 10, 30])
def test_launches_in_turn_are_students_t_of_the_logarithms(count: int) -> None:
    logs = with_moments(count, 0.03, 0.04)
    found = of_pairs(logs)
    expected = stats.ttest_1samp(logs, 0.0)
    assert found.probability == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(math.exp(interval.low)), pytest.approx(math.exp(interval.high)))


def test_launches_apart_are_welchs_t_with_the_freedom_of_the_smaller_side() -> None:
    before, now = with_moments(5, 0.0, 0.02), with_moments(9, 0.05, 0.06)
    found = change_of(list(np.exp(before)), list(np.exp(now)), in_turn=False)
    statistic = stats.ttest_ind(now, before, equal_var=False).statistic
    assert found.probability == pytest.approx(2 * stats.t.sf(abs(statistic), 4))
    assert found.probability > stats.ttest_ind(now, before, equal_var=False).pvalue


@pytest.mark.parametrize("scatter", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("share", [0.02, 0.05, 0.10])
def test_how_many_launches_would_tell_a_change(scatter: float, share: float) -> None:
    """That many launches of this scatter just show it, and one less just does not."""
    needed = of_pairs(with_moments(10, 0.01, scatter)).launches_to_tell(share)
    assert needed is not None
    change = math.log1p(share)
    assert stats.ttest_1samp(with_moments(needed, change, scatter), 0.0).pvalue <= SIGNIFICANCE
    if needed > LEAST_LAUNCHES:
        assert stats.ttest_1samp(with_moments(needed - 1, change, scatter), 0.0).pvalue > SIGNIFICANCE


def test_what_no_number_of_launches_would_tell() -> None:
    assert of_pairs(with_moments(10, 0.0, 0.9)).launches_to_tell(0.02) is None
    assert of_pairs(with_moments(4, 0.0, 0.01)).launches_to_tell(0.05) is None  # too few to say how they scatter
    assert of_pairs([0.01] * 10).launches_to_tell(0.05) == LEAST_LAUNCHES
