"""Intervals and quantiles of draws, against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from revbench.numerics.statistics import INTERVAL_DRAWS, QUANTILE_DRAWS, summarise_draws


@pytest.mark.parametrize("draws", [6, 7, 10, 15, 30, 31, 60])
def test_the_interval_of_the_median_covers_what_it_promises(draws: int) -> None:
    """Of a skewed distribution; 95 of 100 at least, and not much more than order statistics must."""
    values = np.random.default_rng(draws).exponential(1, (4000, draws))
    found = [summarise_draws(line) for line in values]
    covered = np.mean([s.low <= np.log(2) <= s.high for s in found])  # type: ignore[union-attr,operator]
    ranks = [np.searchsorted(np.sort(line), s.low) for line, s in zip(values[:1], found, strict=False)]  # type: ignore[union-attr]
    exact = 1 - 2 * stats.binom.cdf(ranks[0], draws, 0.5)
    assert exact >= 0.95
    assert 1 - 2 * stats.binom.cdf(ranks[0] + 1, draws, 0.5) < 0.95  # the next pair is too narrow
    assert covered == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("draws", [19, 30, 100])
def test_on_average_a_twentieth_lies_below_the_quantile(draws: int) -> None:
    values = np.random.default_rng(draws).uniform(0, 1, (4000, draws))
    found = [summarise_draws(line) for line in values]
    assert np.mean([s.q05 for s in found]) == pytest.approx(0.05, abs=0.003)  # type: ignore[union-attr]
    assert np.mean([s.q95 for s in found]) == pytest.approx(0.95, abs=0.003)  # type: ignore[union-attr]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=70))
def test_what_so_few_draws_do_not_tell_is_none(values: list[float]) -> None:
    found = summarise_draws([*values, float("nan")])
    assert found is not None
    assert (found.q05 is None) == (found.q95 is None) == (len(values) < QUANTILE_DRAWS)
    assert (found.low is None) == (found.high is None) == (len(values) < INTERVAL_DRAWS)
    assert found.smallest <= found.median <= found.largest
    if found.low is not None and found.high is not None:
        assert found.smallest <= found.low <= found.median <= found.high <= found.largest


def test_nothing_has_no_summary() -> None:
    assert summarise_draws([float("nan")]) is None
