"""Joules of a training step."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import torch

from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.nvml import Gpu, Reading
from revbench.workload import Workload

_AHEAD_SECONDS = 0.05  # of steps that the host is ahead of the device
_MOMENT_SECONDS = 0.002  # between two readings of the counter
_STILL_SECONDS = 5.0  # in which the counter must move while the device computes


def measure_energy(
    workload: Workload, *, progress: Progress, window_seconds: float = 2.0, windows: int = 3, warmup_steps: int = 3
) -> Measurement:
    """Measures the energy of the whole GPU over windows of many steps, by NVML's counter of total energy.

    The counter moves about every 0.1 s, so a window is seconds long, and begins and ends when the counter moves. Steps
    follow each other as they do where time is measured: the host is some 50 ms of launches ahead of the GPU. What else runs on
    the GPU is in the energy.

    Args:
        workload: on a GPU, else the row is ``unsupported``.
        progress: not called.
        window_seconds: how long steps are repeated between two ticks of the counter, at least.
        windows: how many.
        warmup_steps: before the first.

    Returns:
        Metrics ``joules_per_step``, ``watts`` (medians over the windows; None with the reason where the GPU has no such
        counter), ``windows``, ``window_seconds``. Samples of the first two.
    """
    if not workload.case.on_gpu:
        raise NotImplementedError("energy is read from NVML, which sees GPUs only")
    inputs, targets = workload.batch()
    for _ in range(warmup_steps):
        workload.step(inputs, targets)
    torch.cuda.synchronize()
    queue = StepQueue(lambda: workload.step(inputs, targets), _Mark)
    with Gpu.of_torch(torch.cuda.current_device()) as gpu:
        ticks = [tick_after(0.0, gpu.energy_joules, queue)]
        for _ in range(windows):
            if isinstance(ticks[-1], Reading):
                break
            ticks.append(tick_after(ticks[-1].seconds + window_seconds, gpu.energy_joules, queue))
    torch.cuda.synchronize()
    told = [tick for tick in ticks if isinstance(tick, Tick)]
    if len(told) < len(ticks):
        reason = next(tick.reason for tick in ticks if isinstance(tick, Reading))
        untold: dict[str, Value] = {"joules_per_step": None, "watts": None}
        return Measurement(untold | {f"{name}_reason": reason for name in untold})
    found = [of_window(a, b) for a, b in itertools.pairwise(told)]
    joules, watts = ([window[i] for window in found] for i in range(2))
    metrics: dict[str, Value] = {
        "joules_per_step": statistics.median(joules), "watts": statistics.median(watts), "windows": windows,
        "window_seconds": window_seconds,
    }  # fmt: skip
    return Measurement(metrics, {"joules_per_step": joules, "watts": watts})


class Tick(NamedTuple):
    """A moment at which the counter of energy moved.

    Attributes:
        seconds: of a monotonic clock.
        joules: what the counter says from then on.
        steps: how many the device had finished.
        mark: the end of the last of them.
    """

    seconds: float
    joules: float
    steps: int
    mark: _Mark


def of_window(a: Tick, b: Tick) -> tuple[float, float]:
    """Returns joules of a step and watts between two ticks, in which the device never idled.

    A window holds no whole number of steps, so a step's joules are the power times what a step takes, by the device's clock.
    """
    watts = (b.joules - a.joules) / (b.seconds - a.seconds)
    return watts * a.mark.seconds_to(b.mark) / (b.steps - a.steps), watts


class StepQueue:
    """Steps that are launched ahead of the device, and how many of them it has finished.

    Args:
        launch: puts a step into the device's queue.
        mark: makes a mark of how far the device's queue is filled.
        clock: monotonic, in seconds.
        pause: sleeps for so many seconds.

    Attributes:
        last: the mark after the last finished step; None before the first.
    """

    def __init__(
        self,
        launch: Callable[[], None],
        mark: Callable[[], _Mark],
        clock: Callable[[], float] = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._launch, self._mark, self._pause = launch, mark, pause
        self.clock = clock
        self.last: _Mark | None = None
        self._under_way: deque[_Mark] = deque()
        self._ahead = 1
        self._finished = 0
        self._began = clock()

    def keep_busy(self) -> None:
        """Launch steps until the device has work for some time, but for a moment only, so that the counter is read in between;
        where it has enough, wait for a moment."""
        finished = self.finished()
        began = self.clock()
        if finished:
            self._ahead = max(int(_AHEAD_SECONDS * finished / (began - self._began)), 2)
        if len(self._under_way) >= self._ahead:
            self._pause(_MOMENT_SECONDS)
        while len(self._under_way) < self._ahead and self.clock() < began + _MOMENT_SECONDS:
            self._launch()
            self._under_way.append(self._mark())

    def finished(self) -> int:
        """Returns how many steps the device has finished."""
        while self._under_way and self._under_way[0].is_reached():
            self.last = self._under_way.popleft()
            self._finished += 1
        return self._finished


class _Mark:
    """The end of what was launched until now."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def is_reached(self) -> bool:
        """Tells whether the device has got there."""
        return bool(self._event.query())

    def seconds_to(self, later: _Mark) -> float:
        """Returns the time between two marks that the device has reached, by its own clock."""
        return float(self._event.elapsed_time(later._event)) / 1e3


def tick_after(seconds: float, read: Callable[[], Reading], queue: StepQueue) -> Tick | Reading:
    """Returns the first moment after so many seconds at which the counter moves, with the device busy all the time.

    Args:
        seconds: by the queue's clock; 0 for the next.
        read: gives the counter in joules.
        queue: of the steps that are measured; at least one of them ends before the moment.

    Returns:
        The moment, or a reading without a value: the counter's own, or one that says that it does not move.
    """
    before, steps_before = read(), queue.finished()
    moved = max(queue.clock(), seconds)
    while before.value is not None:
        queue.keep_busy()
        now = read()
        at, steps = queue.clock(), queue.finished()
        if now.value == before.value:
            if at > moved + _STILL_SECONDS:
                return Reading(None, f"the counter of energy stood still for {_STILL_SECONDS:g} s")
            continue
        if now.value is not None and at >= seconds and steps > steps_before and queue.last is not None:
            return Tick(at, float(now.value), steps, queue.last)
        before, moved = now, max(at, seconds)
    return before
