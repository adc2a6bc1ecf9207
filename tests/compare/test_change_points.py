"""Change points: steps that are planted are found where they are, and noise alone changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from revbench.compare.change_points import LEAST_FOR_NOISE, levels_of_exact, levels_of_noisy
from tests.compare.proof import NOISE

Array = NDArray[np.float64]
Noise = Callable[[np.random.Generator, int], Array]
LEAST = 0.02
DEVIATION = 0.03


def recorded(generator: np.random.Generator, runs: int) -> Array:
    """As it was recorded, but as wide as the normal one: how restless a machine was on that day is not what is tested."""
    ratios = json.loads(NOISE.read_text())["to_stored"]
    of_one = np.asarray(ratios[generator.integers(len(ratios))])
    return generator.choice(of_one * DEVIATION / of_one.std(), runs)


def normal(generator: np.random.Generator, runs: int) -> Array:
    return generator.normal(0.0, DEVIATION, runs)


def with_outliers(generator: np.random.Generator, runs: int) -> Array:
    noise = generator.normal(0.0, 0.02, runs)
    noise[generator.random(runs) < 0.05] += 0.5
    return noise


def tails(generator: np.random.Generator, runs: int) -> Array:
    return DEVIATION * generator.standard_t(3, runs)


NOISES = [recorded, normal, with_outliers, tails]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("runs", [13, 16, 20, 100, 400])
def test_noise_changes_nothing(noise: Noise, runs: int) -> None:
    generator = np.random.default_rng(runs)
    alarms = sum(bool(levels_of_noisy(list(np.exp(noise(generator, runs))), LEAST)) for _ in range(100))
    assert alarms <= 2, "of 100 sequences of one level"


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
def test_noise_changes_nothing_in_thousands(noise: Noise) -> None:
    generator = np.random.default_rng(7)
    alarms = sum(bool(levels_of_noisy(list(np.exp(noise(generator, 100))), LEAST)) for _ in range(3000))
    assert alarms <= 30, "of 3,000 sequences of 100 runs"


@pytest.mark.parametrize(
    ("noise", "step", "least"), [(recorded, 0.10, 98), (normal, 0.10, 98), (with_outliers, 0.10, 90)]
)
def test_a_step_is_found_where_it_is(noise: Noise, step: float, least: int) -> None:
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(100):
        logs = noise(generator, 60)
        logs[40:] += step
        starts = levels_of_noisy(list(np.exp(logs)), LEAST)
        found += len(starts) == 1 and abs(starts[0] - 40) <= 3
    assert found >= least


def test_steps_up_and_down_are_two() -> None:
    logs = np.random.default_rng(3).normal(0.0, 0.01, 90)
    logs[30:60] += 0.2
    assert levels_of_noisy(list(np.exp(logs)), LEAST) == [30, 60]


def test_a_change_below_the_least_is_none_however_certain() -> None:
    logs = np.random.default_rng(3).normal(0.0, 1e-4, 90)
    logs[45:] += 0.01
    assert levels_of_noisy(list(np.exp(logs)), LEAST) == []
    assert levels_of_noisy(list(np.exp(logs)), 0.005) == [45]


def test_a_lone_strange_run_is_no_change() -> None:
    logs = np.random.default_rng(3).normal(0.0, 0.01, 60)
    logs[[20, 41]] += 1.0
    assert levels_of_noisy(list(np.exp(logs)), LEAST) == []


@pytest.mark.parametrize(
    "values", [[], [1.0], [1.0] * 50, [1.0, 2.0] * (LEAST_FOR_NOISE // 2 - 1), [0.0] * 20, [1.0] * 10 + [-1.0]]
)
def test_what_can_tell_nothing(values: list[float]) -> None:
    assert levels_of_noisy(values, LEAST) == []


def test_two_levels_without_noise() -> None:
    """More than half of the differences are 0, so their median says nothing."""
    assert levels_of_noisy([1.0] * 20 + [1.5] * 20, LEAST) == [20]


@pytest.mark.parametrize("step", [1.03, 1.1, 1.3])
def test_an_outlier_hides_no_step_of_what_mostly_repeats(step: float) -> None:
    assert levels_of_noisy([1.0] * 10 + [10.0] + [1.0] * 20 + [step] * 30, LEAST) == [31]
    assert levels_of_noisy([1.0] * 30 + [10.0] * 30 + [10.0 * step] * 30, LEAST) == [30, 60]


def test_every_difference_of_a_metric_that_does_not_scatter_is_a_change() -> None:
    assert levels_of_exact([5.0, 5.0, 6.0, 6.0, 5.0], 0.0) == [2, 4]
    assert levels_of_exact([100.0, 100.4, 100.8, 100.4], 0.005) == [2], "the level is that of its first run"
    assert levels_of_exact([0.0, 0.0, 1.0], 0.005) == [2]
    assert levels_of_exact([], 0.0) == []
