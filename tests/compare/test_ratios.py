"""Ratios of times: their intervals against simulation, and what makes them unstable."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from revbench.case import Case
from revbench.compare.ratios import Ratio, drift_of, gap_of, time_ratio, turn_seconds
from revbench.results.schema import Row
from tests.results.rows import make_row

BASE = Case(model="revnet-38", batch_size=16)
OURS = BASE.replace(strategy="reconstructed")


def launch(
    case: Case, steps: Any, *, repeat: int = 1, session: str | None = "a", per_turn: int = 1, **load: Any
) -> Row:
    metrics: dict[str, Any] = {"step_seconds": float(np.median(steps)), "steps_per_turn": per_turn, **load}
    if session is not None:
        metrics["session"] = session
    return make_row(case=case, repeat=repeat, metrics=metrics, samples={"step_seconds": list(map(float, steps))})


def simulated(
    generator: np.random.Generator, launches: int, turns: int, between: float, within: float, true: float = 1.4
) -> Ratio:
    """Cases that take turns; the machine's own state, which they share, scatters by a third."""
    ours, theirs = [], []
    for repeat in range(1, launches + 1):
        machine = np.exp(generator.normal(0, 0.3, turns))
        ratio = true * np.exp(generator.normal(0, between))
        theirs.append(launch(BASE, machine, repeat=repeat, session=str(repeat)))
        steps = machine * ratio * np.exp(generator.normal(0, within, turns))
        ours.append(launch(OURS, steps, repeat=repeat, session=str(repeat)))
    found = time_ratio(ours, theirs)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("launches", "turns", "between", "within"),
    [(5, 7, 0.02, 0.03), (3, 7, 0.03, 0.01), (5, 7, 0.0, 0.03), (1, 13, 0.0, 0.03), (2, 7, 0.0, 0.03)],
)
def test_the_interval_encloses_the_ratio(launches: int, turns: int, between: float, within: float) -> None:
    """In 95 of 100 cases; 400 simulations tell 92 from that."""
    generator = np.random.default_rng(0)
    found = [simulated(generator, launches, turns, between, within) for _ in range(400)]
    inside = [one.low <= 1.4 <= one.high for one in found if one.low is not None and one.high is not None]
    assert np.mean(inside) >= 0.92
    assert all(one.in_turn and one.launches == launches for one in found)


def test_turns_take_the_machine_out_of_the_ratio() -> None:
    """The same samples that did not take turns tell nothing: the machine's state does not cancel."""
    generator = np.random.default_rng(0)
    machine = np.exp(generator.normal(0, 0.3, 20))
    steps = 1.4 * machine * np.exp(generator.normal(0, 0.01, 20))
    together = time_ratio([launch(OURS, steps)], [launch(BASE, machine)])
    apart = time_ratio([launch(OURS, steps, session="b")], [launch(BASE, machine)])
    assert together is not None
    assert apart is not None
    assert (together.in_turn, apart.in_turn) == (True, False)
    assert together.unstable is None
    assert together.low is not None
    assert 1.39 < together.low < 1.4 < together.value * 1.01
    assert apart.unstable is not None
    assert "the interval reaches" in apart.unstable
    assert apart.low is not None
    assert apart.low < 1.4 / 1.1


def test_launches_are_paired_by_their_number_and_the_others_do_not_count() -> None:
    ours = [launch(OURS, [2.0] * 6, repeat=1), launch(OURS, [90.0] * 6, repeat=2)]
    found = time_ratio(ours, [launch(BASE, [1.0] * 6, repeat=1)])
    assert found is not None
    assert (found.value, found.launches) == (pytest.approx(2.0), 1)
    assert time_ratio(ours, [launch(BASE, [1.0] * 6, repeat=3)]) is None
    assert time_ratio([], ours) is None


def test_launches_in_turn_stand_before_those_that_were_not() -> None:
    """After a resume some launches may be of another process than their base."""
    ours = [launch(OURS, [2.0] * 6, repeat=1), launch(OURS, [9.0] * 6, repeat=2, session="x")]
    found = time_ratio(ours, [launch(BASE, [1.0] * 6, repeat=1), launch(BASE, [1.0] * 6, repeat=2)])
    assert found is not None
    assert (found.value, found.launches, found.in_turn) == (pytest.approx(2.0), 1, True)


def test_a_case_is_as_fast_as_itself() -> None:
    rows = [launch(BASE, [1.0, 3.0, 2.0, 1.0, 5.0], session=None)]
    found = time_ratio(rows, rows)
    assert str(found) == "1.00 ×"


def test_few_turns_have_no_interval() -> None:
    found = time_ratio([launch(OURS, [2.0] * 4)], [launch(BASE, [1.0] * 4)])
    assert found is not None
    assert found.low is None
    assert str(found) == "2.00 ×"
    assert found.unstable == "too few turns for an interval"


def test_a_turn_of_several_steps_counts_once() -> None:
    row = launch(BASE, [1.0, 2.0, 9.0, 4.0, 5.0, 6.0], per_turn=3)
    assert list(turn_seconds(row)) == [2.0, 5.0]
    assert len(turn_seconds(launch(BASE, [1.0, 2.0, 9.0], per_turn=2))) == 3  # of a file that does not fit together


def test_a_drift_and_two_modes_are_named_with_what_the_machine_did() -> None:
    turns = 24
    slowly = np.linspace(1.0, 1.3, turns)
    found = time_ratio(
        [launch(OURS, slowly, other_cpu_cores=1.76, throttle_reasons=0x20, minor_faults_per_step=12345.0)],
        [launch(BASE, np.ones(turns), stolen_cpu_cores=0.3, quota_share=0.25)],
    )
    assert found is not None
    assert found.unstable is not None
    assert "it drifts by 20% within a launch" in found.unstable
    assert found.unstable.endswith(
        "(in one of the launches other processes kept 1.8 cores busy, 0.3 cores were taken by other virtual machines, the"
        " container's quota held it back 25% of the time, the GPU was throttled, 12,345 page faults a step, its own or those of"
        " what it is set beside)"
    )
    modes = np.where(np.arange(turns) % 3 == 0, 1.0, 1.2) + np.linspace(0, 0.001, turns)
    found = time_ratio([launch(OURS, modes)], [launch(BASE, np.ones(turns))])
    assert found is not None
    assert found.unstable == "it has two modes, 20% apart"


@pytest.mark.parametrize("turns", [10, 20, 50])
def test_noise_has_no_shape(turns: int) -> None:
    """Neither normal nor with heavy tails, in 98 of 100 cases; two modes are found in 95."""
    generator = np.random.default_rng(0)
    for draw in (generator.normal, lambda _, s, n: s * generator.standard_t(2, n)):
        values = [draw(0, 0.03, turns) for _ in range(300)]
        assert np.mean([gap_of(v) > 0 for v in values]) <= 0.02
        assert np.mean([drift_of(v) != 0 for v in values]) <= 0.02
    two = [np.where(generator.random(turns) < 0.5, 0, 0.3) + generator.normal(0, 0.02, turns) for _ in range(300)]
    assert np.mean([gap_of(v) > 0.2 for v in two]) >= 0.95


def test_a_factor_that_is_known_moves_all_of_it() -> None:
    found = Ratio(2.0, 1.9, 2.1, 5, True, None).scaled(0.5)
    assert (found.value, found.low, found.high) == (1.0, 0.95, 1.05)
    assert math.isclose(Ratio(2.0, None, None, 1, True, "few").scaled(3).value, 6.0)
