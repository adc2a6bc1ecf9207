"""What a GPU does while steps are timed on it: its clocks, who else computes on it, and how much of a step it computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from revbench.probes.measurement import Value
from revbench.probes.nvml import Gpu, Reading, joined
from revbench.workload import Workload

LAUNCH_BOUND_BELOW = 0.8  # below this share of the step with a kernel running, the host is what is timed
_QUEUED_SECONDS = 0.03  # of steps, before the clocks are read: longer than NVML takes to answer
_MOST_QUEUED = 64  # steps
_READINGS = 5
_PROFILED_STEPS = 3
_NO_KERNELS = "the profiler saw no kernel: CUPTI has no permission here, or another profiler is at work"


def gpu_load(workload: Workload, inputs: Any, targets: Any, step_seconds: float) -> dict[str, Value]:
    """Measures it in passes of its own, after the steps that are timed.

    Args:
        workload: on a GPU.
        inputs, targets: a batch on it.
        step_seconds: what a step takes when nobody looks.

    Returns:
        ``sm_clock_megahertz`` (median), ``temperature_celsius`` (highest) and ``throttle_reasons`` (all that were given), each
        read while steps are queued, since an idle GPU lowers its clocks; ``other_processes``; ``kernel_busy_share`` and
        ``launch_bound``. What can't be had is None with the reason.
    """
    queued = min(max(math.ceil(_QUEUED_SECONDS / step_seconds), 1), _MOST_QUEUED)
    moments = []
    with Gpu.of_torch(torch.cuda.current_device()) as gpu:
        for _ in range(_READINGS):
            for _ in range(queued):
                workload.step(inputs, targets)
            moments.append(gpu.clocks())
            torch.cuda.synchronize()
        others = gpu.other_processes()
    busy = kernel_busy_share(_kernels(workload, inputs, targets), _PROFILED_STEPS * step_seconds)
    return joined(moments) | others.metrics("other_processes") | busy


def kernel_busy_share(kernels: Sequence[tuple[float, float]], seconds: float) -> dict[str, Value]:
    """Returns how much of the time at least one kernel runs, and whether that is so little that the host is what is timed.

    Args:
        kernels: begin and end in seconds, in any order; they may overlap.
        seconds: what the same steps take when nobody profiles them; a profiler makes launches slower, and kernels hardly.

    Returns:
        ``kernel_busy_share``, at most 1, and ``launch_bound``, 0 or 1; both None with the reason if there are no kernels.
    """
    if not kernels:
        untold = Reading(None, _NO_KERNELS)
        return untold.metrics("kernel_busy_share") | untold.metrics("launch_bound")
    busy, reach = 0.0, -math.inf
    for start, end in sorted(kernels):
        busy += max(end - max(start, reach), 0.0)
        reach = max(reach, end)
    share = min(busy / seconds, 1.0)
    return {"kernel_busy_share": share, "launch_bound": int(share < LAUNCH_BOUND_BELOW)}


def _kernels(workload: Workload, inputs: Any, targets: Any) -> list[tuple[float, float]]:
    """Returns begin and end, in seconds, of every kernel and copy of a few steps that are profiled."""
    from torch.autograd import DeviceType  # type: ignore[attr-defined]
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiler:
        for _ in range(_PROFILED_STEPS):
            workload.step(inputs, targets)
        torch.cuda.synchronize()
    return [
        (event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in profiler.events() or []
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
