"""Seconds of a training step and of its phases."""

from __future__ import annotations

import itertools
import math
import random
import resource
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from revbench.probes.declared import PHASES
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload


def measure_time(
    workload: Workload,
    *,
    progress: Progress,
    min_rounds: int = 5,
    max_seconds: float = 2.0,
    warmup_rounds: int = 2,
) -> Measurement:
    """Times whole training steps; one timed pass gives the step and its phases.

    On a GPU by device events, read once at the end, so that no synchronisation stands between the
    launches; on the CPU by the monotonic clock. Warm-up steps are not counted, and every sample is kept.

    Args:
        workload: what to time.
        progress: not called: a timed pass reports nothing until it is over.
        min_rounds: steps at least.
        max_seconds: begin no further step after this, once there are `min_rounds`.
        warmup_rounds: steps before the first counted one.

    Raises:
        FloatingPointError: the steps diverged.

    Returns:
        Metrics ``step_seconds``, ``forward_seconds``, ``backward_seconds``, ``optimizer_seconds`` (medians over the
        steps), ``rounds``, ``minor_faults_per_step``; on a GPU also its clocks while steps are queued, how many other
        processes compute on it, and the share of the step in which a kernel ran. Samples for each of the seconds.
    """
    cuda = workload.case.on_gpu
    inputs, targets = workload.batch()
    for _ in range(warmup_rounds):
        _step(workload, inputs, targets, _HostMarks())
    if cuda:
        torch.cuda.synchronize()
    rounds: list[_Marks] = []
    faults = _minor_faults()
    began = time.perf_counter()
    while len(rounds) < min_rounds or time.perf_counter() - began < max_seconds:
        rounds.append(_timed_step(workload, inputs, targets))
        if cuda and len(rounds) % 64 == 0:
            torch.cuda.synchronize()  # else the host runs ahead of max_seconds by a long queue
    if cuda:
        torch.cuda.synchronize()
    metrics, samples = _summary(rounds)
    metrics["minor_faults_per_step"] = (_minor_faults() - faults) / len(rounds)
    _refuse_divergence(workload, inputs, targets)
    if cuda:
        from revbench.probes.gpu_load import gpu_load

        metrics |= gpu_load(workload, inputs, targets, statistics.median(samples["step_seconds"]))
    return Measurement(metrics, samples)


def measure_time_interleaved(
    workloads: Sequence[Workload], *, progress: Progress, rounds: int = 15, warmup_rounds: int = 2
) -> list[Measurement]:
    """Times the steps of several workloads in turn, in one process: what slows the machine slows them all.

    A ratio of two of these is worth more than one of two processes, if their weights fit in memory together. Each round
    has an order of its own, drawn with a fixed seed, so that nobody always follows the same neighbour; a GPU is idle when
    a step begins, so that no neighbour hides what it costs to launch the first kernels.

    Args:
        workloads: what to time, on one device.
        progress: not called.
        rounds: steps of each.
        warmup_rounds: steps of each before the first counted one.

    Raises:
        FloatingPointError: the steps of one of them diverged.

    Returns:
        For each workload metrics and samples as of `measure_time`, without the page faults and a GPU's own.
    """
    batches = [workload.batch() for workload in workloads]
    cuda = workloads[0].case.on_gpu
    found: list[list[_Marks]] = [[] for _ in workloads]
    for number, order in enumerate(orders(len(workloads), warmup_rounds + rounds)):
        for which in order:
            if cuda:
                torch.cuda.synchronize()
            marks = _timed_step(workloads[which], *batches[which])
            workloads[which].optimizer.zero_grad(set_to_none=True)
            if number >= warmup_rounds:
                found[which].append(marks)
    if cuda:
        torch.cuda.synchronize()
    for workload, batch in zip(workloads, batches, strict=True):
        _refuse_divergence(workload, *batch)
    return [Measurement(*_summary(marks)) for marks in found]


def orders(count: int, rounds: int) -> Iterator[list[int]]:
    """Yields for each round an order of so many; the same ones each time."""
    generator = random.Random(0)
    for _ in range(rounds):
        yield generator.sample(range(count), count)


def _summary(rounds: Sequence[_Marks]) -> tuple[dict[str, Value], dict[str, list[float]]]:
    """Returns medians over the steps, and every sample."""
    seconds = [marks.seconds() for marks in rounds]
    samples = {f"{phase}_seconds": [s[i] for s in seconds] for i, phase in enumerate(PHASES)}
    samples["step_seconds"] = [sum(s) for s in seconds]
    metrics: dict[str, Value] = {name: statistics.median(values) for name, values in samples.items()}
    return metrics | {"rounds": len(rounds)}, samples


def _refuse_divergence(workload: Workload, inputs: Any, targets: Any) -> None:
    """Raise if the steps led to NaN, which takes another time than numbers do.

    Raises:
        FloatingPointError: the loss is not finite any more.
    """
    loss = workload.forward(inputs, targets).item()
    if not math.isfinite(loss):
        rate = workload.case.learning_rate
        mend = (
            f"choose a smaller learning rate than {rate:g}" if rate else "look at the network, its loss and its batch"
        )
        raise FloatingPointError(f"the loss is {loss} after the steps that were timed; {mend}")


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _timed_step(workload: Workload, inputs: Any, targets: Any) -> _Marks:
    marks = _DeviceMarks() if workload.case.on_gpu else _HostMarks()
    _step(workload, inputs, targets, marks)
    return marks


def _step(workload: Workload, inputs: Any, targets: Any, marks: _Marks) -> None:
    marks.mark()
    loss = workload.forward(inputs, targets)
    marks.mark()
    loss.backward()
    marks.mark()
    workload.optimizer.step()
    marks.mark()


class _HostMarks:
    def __init__(self) -> None:
        self._times: list[float] = []

    def mark(self) -> None:
        self._times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self._times)]


class _DeviceMarks:
    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def seconds(self) -> list[float]:
        return [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(self._events)]


_Marks = _HostMarks | _DeviceMarks
