"""Joules of a training step."""

from __future__ import annotations

import statistics
import time

import torch

from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.nvml import Gpu
from revbench.workload import Workload


def measure_energy(
    workload: Workload, *, progress: Progress, window_seconds: float = 2.0, windows: int = 3, warmup_steps: int = 3
) -> Measurement:
    """Measures the energy of the whole GPU over windows of many steps, by NVML's counter of total energy.

    The counter moves about every 0.1 s, so a window must be seconds long. What else runs on the GPU is in it.

    Args:
        workload: on a GPU, else the row is ``unsupported``.
        progress: not called.
        window_seconds: how long steps are repeated between two readings, at least.
        windows: how many.
        warmup_steps: before the first.

    Returns:
        Metrics ``joules_per_step``, ``watts`` (medians over the windows; None with the reason where the GPU has no such
        counter), ``windows``, ``window_seconds``. Samples of the first two.
    """
    if not workload.case.on_gpu:
        raise NotImplementedError("energy is read from NVML, which sees GPUs only")
    inputs, targets = workload.batch()

    def step() -> None:
        workload.step(inputs, targets)
        torch.cuda.synchronize()

    for _ in range(warmup_steps):
        step()
    joules, watts = [], []
    with Gpu.of_torch(torch.cuda.current_device()) as gpu:
        for _ in range(windows):
            before, began, steps = gpu.energy_joules(), time.perf_counter(), 0
            while time.perf_counter() - began < window_seconds:
                step()
                steps += 1
            after, seconds = gpu.energy_joules(), time.perf_counter() - began
            if before.value is None or after.value is None:
                reason = before.reason or after.reason
                untold: dict[str, Value] = {"joules_per_step": None, "watts": None}
                return Measurement(untold | {f"{name}_reason": reason for name in untold})
            joules.append((after.value - before.value) / steps)
            watts.append((after.value - before.value) / seconds)
    metrics: dict[str, Value] = {
        "joules_per_step": statistics.median(joules), "watts": statistics.median(watts), "windows": windows,
        "window_seconds": window_seconds,
    }  # fmt: skip
    return Measurement(metrics, {"joules_per_step": joules, "watts": watts})
