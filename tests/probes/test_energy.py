"""Joules of a step, by a counter that moves now and then, on a device that is simulated."""

from __future__ import annotations

import itertools

import pynvml
import pytest
import torch

from revbench.probes import energy
from revbench.probes.energy import StepQueue, Tick, measure_energy, of_window, tick_after
from revbench.probes.nvml import Reading
from tests.probes.test_device_probes import as_if_on_a_gpu, ignore
from tests.probes.test_nvml import FakeNvml, failure


class Device:
    """Takes steps one after the other; its counter of energy moves every `tick_seconds`.

    Attributes:
        now: what the clock says: every call of the host's takes some time.
    """

    def __init__(
        self, step_seconds: float, watts: float, *, tick_seconds: float = 0.1, idle_watts: float = 0.0
    ) -> None:
        self.now = 0.0
        self.step_seconds, self.tick_seconds = step_seconds, tick_seconds
        self.watts, self.idle_watts = watts, idle_watts
        self.ends: list[float] = []

    def launch(self) -> None:
        self.now += 1e-4
        self.ends.append(max(self.now, self.ends[-1] if self.ends else 0.0) + self.step_seconds)

    def mark(self) -> Mark:
        return Mark(self, self.ends[-1])

    def clock(self) -> float:
        self.now += 1e-6
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def queue(self) -> StepQueue:
        return StepQueue(self.launch, self.mark, self.clock, self.pause)  # type: ignore[arg-type]

    def read(self) -> Reading:
        self.now += 1e-3
        moment = self.now // self.tick_seconds * self.tick_seconds
        busy = sum(max(min(end, moment) - (end - self.step_seconds), 0.0) for end in self.ends)
        return Reading(self.watts * busy + self.idle_watts * (moment - busy))


class Mark:
    def __init__(self, device: Device, end: float) -> None:
        self.device, self.end = device, end

    def is_reached(self) -> bool:
        return self.device.now >= self.end

    def seconds_to(self, later: Mark) -> float:
        return later.end - self.end


@pytest.mark.parametrize("step_seconds", [0.002, 0.03, 0.4, 3.0])
def test_a_window_from_tick_to_tick(step_seconds: float) -> None:
    """Between them the device never idles: its idle power, which is another, is in none of the joules. A window of 2 s need hold
    no whole number of steps."""
    device = Device(step_seconds, 300.0, idle_watts=1000.0)
    queue = device.queue()
    first = tick_after(0.0, device.read, queue)
    assert isinstance(first, Tick)
    second = tick_after(first.seconds + 2.0, device.read, queue)
    assert isinstance(second, Tick)
    assert 2.0 <= second.seconds - first.seconds <= max(2.2, 2 * step_seconds + 0.2)
    joules, watts = of_window(first, second)
    assert watts == pytest.approx(300.0, rel=0.01)
    assert joules == pytest.approx(300.0 * step_seconds, rel=0.01)
    assert len(device.ends) - queue.finished() <= max(2, 0.06 / step_seconds)  # not far ahead of the device


def test_a_host_that_is_slower_than_the_device_reads_the_counter_all_the_same() -> None:
    device = Device(2e-5, 300.0)  # a launch takes longer
    queue = device.queue()
    readings: list[float] = []

    def read() -> Reading:
        found = device.read()
        readings.append(device.now)
        return found

    first = tick_after(0.0, read, queue)
    assert isinstance(first, Tick)
    second = tick_after(first.seconds + 1.0, read, queue)
    assert isinstance(second, Tick)
    assert max(b - a for a, b in itertools.pairwise(readings)) < 0.006
    joules, watts = of_window(first, second)
    assert watts == pytest.approx((second.joules - first.joules) / (second.seconds - first.seconds))
    assert joules == pytest.approx((second.joules - first.joules) / (second.steps - first.steps), rel=0.01)


def test_a_counter_that_stands_still_is_no_energy() -> None:
    device = Device(0.01, 300.0, tick_seconds=1e9)
    found = tick_after(0.0, device.read, device.queue())
    assert found == Reading(None, "the counter of energy stood still for 5 s")


def test_a_counter_that_is_lost_on_the_way_is_none_with_its_reason() -> None:
    device = Device(0.01, 300.0)
    answers = iter([Reading(1.0), Reading(1.0), Reading(None, "NVML: GPU is lost")])
    queue = device.queue()
    assert tick_after(0.0, lambda: next(answers), queue) == Reading(None, "NVML: GPU is lost")


class AtOnce:
    """What was launched has been computed."""

    def is_reached(self) -> bool:
        return True

    def seconds_to(self, later: AtOnce) -> float:
        return 1.0


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_Mark", AtOnce)


@pytest.mark.usefixtures("_at_once")
def test_energy_over_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    spent = iter(range(0, 10_000_000, 4_000))
    fake = FakeNvml(millijoules=lambda: next(spent))
    found = measure_energy(as_if_on_a_gpu(monkeypatch, fake), progress=ignore, window_seconds=0.02)
    assert len(found.samples["joules_per_step"]) == 3
    assert found.metrics["joules_per_step"] > 0  # type: ignore[operator]
    assert found.metrics["watts"] > 0  # type: ignore[operator]


@pytest.mark.usefixtures("_at_once")
def test_a_gpu_without_a_counter_of_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(millijoules=failure(pynvml.NVML_ERROR_NOT_SUPPORTED))
    found = measure_energy(as_if_on_a_gpu(monkeypatch, fake), progress=ignore, window_seconds=0.001)
    assert found.metrics["joules_per_step"] is found.metrics["watts"] is None
    assert "Not Supported" in str(found.metrics["joules_per_step_reason"])


@pytest.mark.cuda
def test_a_mark_is_not_reached_before_the_device_is_there() -> None:
    first = energy._Mark()
    torch.cuda._sleep(200_000_000)  # cycles: a tenth of a second
    mark = energy._Mark()
    assert not mark.is_reached()
    torch.cuda.synchronize()
    assert mark.is_reached()
    assert 0.01 < first.seconds_to(mark) < 10
