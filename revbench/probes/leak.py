"""Whether memory grows from step to step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from scipy import stats

from revbench.errors import UserError
from revbench.probes.live_tensors import LiveTensors
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload

CONFIDENCE = 0.95


def measure_leak(workload: Workload, *, progress: Progress, steps: int = 8, warmup_steps: int = 2) -> Measurement:
    """Returns the slope of memory over training steps, by least squares.

    What is read at the end of each step, gradients released: on a GPU what the allocator has given out, on the CPU the
    live tensors that operations made since the beginning. Tensors only: what a library holds for itself is not seen.

    Args:
        workload: what to run.
        progress: not called.
        steps: that count, at least 3.
        warmup_steps: before them, in which optimizer state and caches are made.

    Raises:
        UserError: fewer steps.
        NotImplementedError: compiled code on the CPU, whose tensors the tracker can't see.

    Returns:
        Metrics ``leak_bytes_per_step`` with ``leak_low_bytes_per_step`` and ``leak_high_bytes_per_step``, the interval of
        confidence of 95 % (Student's t), and ``steps``. Sample ``end_of_step_bytes``.
    """
    if steps < 3:
        raise UserError(f"steps={steps}: a slope with its interval needs at least 3")
    inputs, targets = workload.batch()
    cuda = workload.case.on_gpu
    if not cuda and (workload.case.compile or workload.case.strategy == "torch_budget"):
        raise NotImplementedError(
            "compiled code makes tensors that the tracker can't see; a leak is looked for uncompiled"
        )
    live = LiveTensors()
    found: list[float] = []
    for number in range(-warmup_steps, steps):
        with nullcontext() if cuda else live:
            workload.step(inputs, targets)
            workload.optimizer.zero_grad(set_to_none=True)
        if cuda:
            torch.cuda.synchronize()
        if number >= 0:
            found.append(float(torch.cuda.memory_allocated() if cuda else live.live_bytes))
    slope, low, high = slope_with_interval(found)
    metrics: dict[str, Value] = {
        "leak_bytes_per_step": slope, "leak_low_bytes_per_step": low, "leak_high_bytes_per_step": high, "steps": steps
    }  # fmt: skip
    return Measurement(metrics, {"end_of_step_bytes": found})


def slope_with_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the least-squares slope of equally spaced values, and its interval of confidence (Student's t, ``CONFIDENCE``)."""
    if min(values) == max(values):
        return 0.0, 0.0, 0.0
    fit = stats.linregress(range(len(values)), values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half
