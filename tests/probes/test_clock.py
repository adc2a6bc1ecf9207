"""Times of steps: turns of workloads that are compared, what fails on the way, and what else the machine did."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.case import Case
from revbench.errors import UserError
from revbench.probes import clock
from revbench.probes.clock import measure_time
from revbench.probes.measurement import Measurement
from revbench.workload import Workload, build_workload

SMALL = Case(model="revnet-38", image_size=8, batch_size=4)


def timed(*cases: Case, **options: Any) -> list[Measurement]:
    found = measure_time([build_workload(case) for case in cases], progress=lambda _: None, **options)
    assert all(isinstance(one, Measurement) for one in found), found
    return found  # type: ignore[return-value]


def test_time_keeps_every_sample_and_its_phases() -> None:
    (found,) = timed(SMALL, min_rounds=4, max_seconds=0.0, warmup_rounds=1)
    assert found.metrics["rounds"] == found.metrics["turns"] == 4
    assert {len(values) for values in found.samples.values()} == {4}
    for i, step in enumerate(found.samples["step_seconds"]):
        phases = [found.samples[f"{phase}_seconds"][i] for phase in ("forward", "backward", "optimizer")]
        assert min(phases) > 0
        assert step == pytest.approx(sum(phases))
    assert found.metrics["step_seconds"] == statistics.median(found.samples["step_seconds"])
    assert found.metrics["cases_in_turn"] == 1


def test_time_goes_on_for_as_long_as_asked() -> None:
    (found,) = timed(SMALL, min_rounds=1, max_seconds=0.5, warmup_rounds=0)
    assert sum(found.samples["step_seconds"][:-1]) < 0.5


def test_turns_are_the_steps_of_each() -> None:
    """Samples stand turn after turn, as many as the row says."""
    small, large = timed(SMALL, SMALL.replace(batch_size=32), min_rounds=5, max_seconds=0.3)
    for one in (small, large):
        assert one.metrics["turns"] >= 5  # type: ignore[operator]
        assert one.metrics["turns"] * one.metrics["steps_per_turn"] == one.metrics["rounds"]  # type: ignore[operator]
        assert {len(values) for values in one.samples.values()} == {one.metrics["rounds"]}
        assert one.metrics["cases_in_turn"] == 2
    assert small.metrics["session"] == large.metrics["session"]
    assert small.metrics["turns"] == large.metrics["turns"]
    assert small.metrics["step_seconds"] < large.metrics["step_seconds"]  # type: ignore[operator]


class Scripted:
    """A workload whose steps take what they are told to, by a clock that nothing else moves."""

    def __init__(self, name: str, seconds: Callable[[], float], log: list[str], now: list[float]) -> None:
        self.case = SMALL
        self.optimizer = self
        self._name, self._seconds, self._log, self._now = name, seconds, log, now

    def batch(self) -> tuple[int, int]:
        return 0, 0

    def forward(self, inputs: object, targets: object) -> Any:
        self._log.append(self._name)
        self._now[0] += self._seconds()
        return self

    def backward(self) -> None:
        """Take no time."""

    def step(self) -> None:
        """Take no time."""

    def zero_grad(self, *, set_to_none: bool) -> None:
        """Hold nothing."""

    def item(self) -> float:
        return 1.0


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Workload], list[str]]]:
    def make(*seconds: Callable[[], float]) -> tuple[list[Workload], list[str]]:
        now, log = [0.0], []  # type: ignore[var-annotated]
        monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
        return [Scripted(str(i), one, log, now) for i, one in enumerate(seconds)], log  # type: ignore[misc]

    return make


Make = Callable[..., tuple[list[Workload], list[str]]]


def runs(log: Sequence[str]) -> list[tuple[str, int]]:
    return [(name, len(list(group))) for name, group in itertools.groupby(log)]


def test_a_turn_of_several_steps_begins_with_one_that_does_not_count(scripted: Make) -> None:
    workloads, log = scripted(lambda: 0.05, lambda: 0.2)
    short, long = measure_time(workloads, progress=lambda _: None, max_seconds=10.0)
    assert isinstance(short, Measurement)
    assert isinstance(long, Measurement)
    assert (short.metrics["steps_per_turn"], long.metrics["steps_per_turn"]) == (2, 1)
    turns = [length for name, length in runs(log[4:-2]) if name == "0"]  # without warm-up and the looks at the loss
    assert set(turns) <= {3, 6}  # a round may end and the next begin with the same
    assert sum(turns) == 3 * short.metrics["turns"]  # type: ignore[operator]
    assert short.metrics["rounds"] == 2 * short.metrics["turns"]  # type: ignore[operator]


def test_an_even_slow_down_leaves_the_ratio_alone(scripted: Make) -> None:
    """The machine becomes twice as slow on the way; one after the other the ratio would be 1 and not 2."""
    calls = itertools.count()
    slow = lambda: 2.0 if next(calls) > 60 else 1.0  # noqa: E731
    workloads, _ = scripted(lambda: 0.2 * slow(), lambda: 0.1 * slow())
    first, second = measure_time(workloads, progress=lambda _: None, max_seconds=10.0)
    assert isinstance(first, Measurement)
    assert isinstance(second, Measurement)
    assert max(first.samples["step_seconds"]) == pytest.approx(2 * min(first.samples["step_seconds"]))
    turns = zip(first.samples["step_seconds"], second.samples["step_seconds"], strict=True)
    assert statistics.median(a / b for a, b in turns) == pytest.approx(2.0)


@pytest.mark.parametrize("count", [3, 4, 9])
def test_nobody_always_follows_the_same_neighbour(scripted: Make, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock.secrets, "token_hex", lambda _: "b5")
    workloads, log = scripted(*[lambda: 1.0] * count)
    measure_time(workloads, progress=lambda _: None, min_rounds=15, max_seconds=0.0)
    turns = log[2 * count : -count]
    assert [sorted(turns[i : i + count]) for i in range(0, len(turns), count)] == [sorted(set(turns))] * 15
    for one in sorted(set(turns)):
        before = [a for a, b in itertools.pairwise(turns) if b == one]
        commonest = max(before.count(other) for other in set(turns))
        assert commonest <= 0.7 * len(before), (one, before)


def test_whoever_fails_is_left_out_and_the_others_go_on(scripted: Make, capsys: pytest.CaptureFixture[str]) -> None:
    left = itertools.chain([0.1] * 5, [torch.OutOfMemoryError("no memory")])

    def ends() -> float:
        if isinstance(found := next(left), Exception):
            raise found
        return found  # type: ignore[no-any-return]

    workloads, log = scripted(lambda: 0.2, ends, lambda: 0.3)
    first, failed, last = measure_time(workloads, progress=lambda _: None, min_rounds=9, max_seconds=0.0)
    assert isinstance(failed, torch.OutOfMemoryError)
    assert failed.__traceback__ is None  # it would keep the tensors of the step alive
    assert "no memory" in capsys.readouterr().err
    for one in (first, last):
        assert isinstance(one, Measurement)
        assert one.metrics["rounds"] == 9
        assert one.metrics["cases_in_turn"] == 2
    assert log.count("1") == 6


def test_a_mistake_ends_all(scripted: Make) -> None:
    def mistaken() -> float:
        raise UserError("of the user")

    workloads, _ = scripted(lambda: 0.2, mistaken)
    with pytest.raises(UserError, match="of the user"):
        measure_time(workloads, progress=lambda _: None)


def steep() -> tuple[object, ...]:
    """A chain whose squared loss diverges at the paper's learning rate."""

    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = 10 * torch.randn(count, 16, generator=generator)
        return x, -x

    net = revbench.reversible([(half(), half()) for _ in range(4)])
    return net, make_batch, lambda out, target: (out - target).square().sum()


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
def test_measured_steps_do_not_diverge_unless_they_are_told_to(strategy: str) -> None:
    case = Case(model=f"{__name__}:steep", strategy=strategy, batch_size=8)
    workload = build_workload(case)
    before = [p.detach().clone() for p in workload.model.parameters()]
    measure_time([workload], progress=lambda _: None, min_rounds=3, max_seconds=0.0)
    assert all(map(torch.equal, before, workload.model.parameters()))
    diverging = build_workload(case.replace(learning_rate=0.1))
    (found,) = measure_time([diverging], progress=lambda _: None, min_rounds=9, max_seconds=0.0)
    assert isinstance(found, FloatingPointError)
