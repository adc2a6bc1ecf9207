"""The comparison's promises, on recorded noise: at most one false alarm in a thousand, and slow-downs that are found."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from tests.compare.planted import RECORDED, found_in
from tests.compare.proof import FAMILY, NOISE, compared_in_turn, compared_to_stored


def test_the_recorded_noise_is_noise() -> None:
    """Of a real machine: it scatters, and favours neither of two like versions."""
    found = json.loads(NOISE.read_text())
    for kind in ("in_turn", "to_stored"):
        assert len(found[kind]) >= 2
        for launches in found[kind]:
            assert len(launches) >= 20
            assert 1e-3 < stats.median_abs_deviation(launches, scale="normal") < 0.1
    for launches in found["in_turn"]:
        assert stats.ttest_1samp(launches, 0.0).pvalue > 0.001


def test_unchanged_cases_raise_no_alarm() -> None:
    generator = np.random.default_rng(0)
    assert compared_in_turn(generator, 1.0, 15).alarms == 0
    assert compared_to_stored(generator, 1.0, 15).alarms == 0


def test_a_real_slow_down_is_found_and_what_is_unchanged_is_not_called_slower() -> None:
    """Of ten of the launches in which one of twenty blocks more, two more, and none were measured."""
    found = found_in(json.loads(RECORDED.read_text()), 300)
    assert found["unchanged"] == {"worse": 0, "better": 0}
    assert found["five_percent"]["worse"] >= 240
    assert found["ten_percent"]["worse"] >= 285
    assert not any(counts["better"] for counts in found.values())


@pytest.mark.parametrize("changed", [1, FAMILY])
def test_slow_downs_are_found(changed: int) -> None:
    generator = np.random.default_rng(0)
    ten = compared_in_turn(generator, 1.1, 40 // changed, changed)
    assert ten.worse >= 0.95 * ten.comparisons
    assert ten.better == 0
    five = compared_in_turn(generator, 1.05, 40 // changed, changed)
    assert five.worse >= 0.8 * five.comparisons


@pytest.mark.slow
def test_at_most_one_false_alarm_in_a_thousand() -> None:
    generator = np.random.default_rng(1)
    in_turn = compared_in_turn(generator, 1.0, 500)
    assert in_turn.comparisons == 10_000
    assert in_turn.alarms <= 10
    to_stored = compared_to_stored(generator, 1.0, 500)
    assert to_stored.alarms <= 10


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "least"), [(1.1, 0.95), (1.05, 0.8)])
def test_many_slow_downs_are_found(factor: float, least: float) -> None:
    generator = np.random.default_rng(1)
    found = compared_in_turn(generator, factor, 400, 1)
    assert found.worse >= least * found.comparisons
