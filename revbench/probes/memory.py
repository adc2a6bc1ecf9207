"""Bytes that a training step needs, by phase: live tensors, resident set, the CUDA allocator's and NVML's figures."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import torch

from revbench.probes.clock import PHASES
from revbench.probes.found import Found, Metric, Progress
from revbench.probes.tracked_step import TrackedStep, track_step
from revbench.workload import Workload


def measure_memory(workload: Workload, *, progress: Progress, timeline: bool = True, allocator: bool = False) -> Found:
    """Measure a step's memory in passes of their own: first the untouched process, then the tracker.

    Each pass takes one step to create the optimizer's state, then the step that is measured. Parameters,
    buffers, optimizer state and the batch are alive throughout (``steady_bytes``); gradients are made by each
    step, since it begins with ``zero_grad(set_to_none=True)``.

    Args:
        workload: what to measure.
        progress: not called: the probe is over in two steps.
        timeline: keep the live bytes after each operation.
        allocator: on the CPU, also ask PyTorch's allocator, through its profiler (on a GPU it is always asked).

    Returns:
        Metrics ``peak_bytes`` and ``forward_peak_bytes``, ``backward_peak_bytes``, ``optimizer_peak_bytes`` of live
        tensors, ``steady_bytes``, ``activation_peak_bytes`` (the peak above the steady state), all but
        ``steady_bytes`` None for compiled cases; ``allocated_activation_peak_bytes``, what the allocator gave out above
        the steady state, with the memory that a kernel takes and gives back inside one operation;
        ``rss_peak_bytes`` (the worker's high-water mark) and ``rss_before_bytes``. On a GPU also the allocator's
        ``<phase>_allocated_peak_bytes``, ``allocated_peak_bytes``, ``requested_peak_bytes``,
        ``reserved_peak_bytes`` and NVML's ``nvml_process_bytes``.
        Series ``operation``, ``live_bytes``, ``phase``: one row for each operation of the step.
    """
    metrics: dict[str, Metric] = {"rss_before_bytes": _resident_bytes("VmRSS")}
    inputs, targets = workload.batch()
    _step(workload, inputs, targets)
    if workload.case.device.startswith("cuda"):
        metrics |= _allocator(workload, inputs, targets)
    else:
        _step(workload, inputs, targets)
    metrics["rss_peak_bytes"] = _resident_bytes("VmHWM")

    if workload.case.device == "cpu" and allocator:
        metrics["allocated_activation_peak_bytes"] = _cpu_allocator(workload, inputs, targets)
    if workload.case.compile or workload.case.strategy == "torch_budget":
        reason = "compiled code makes tensors that the tracker can't see"
        untold = ("peak_bytes", "activation_peak_bytes", *(f"{phase}_peak_bytes" for phase in PHASES))
        return Found(metrics | dict.fromkeys(untold) | {f"{name}_reason": reason for name in untold})

    step = track_step(workload, inputs, targets)
    return Found(metrics | tracked_metrics(step), series=step.timeline if timeline else {})


def tracked_metrics(step: TrackedStep) -> dict[str, Metric]:
    """The tracker's figures under the names that rows have for them."""
    return {
        **{f"{phase}_peak_bytes": value for phase, value in step.phase_peak_bytes.items()},
        **{f"{phase}_peak_place": value for phase, value in step.phase_peak_places.items()},
        "peak_bytes": step.peak_bytes, "steady_bytes": step.steady_bytes, "activation_peak_bytes": step.activation_peak_bytes,
        "activation_peak_without_gradients_bytes": step.activation_peak_without_gradients_bytes,
        "parameter_bytes": step.parameter_bytes, "gradient_bytes": step.gradient_bytes,
        "optimizer_state_bytes": step.optimizer_state_bytes, "batch_bytes": step.batch_bytes, "kept_bytes": step.kept_bytes,
    }  # fmt: skip


def _step(workload: Workload, inputs: Any, targets: Any) -> None:
    workload.forward(inputs, targets).backward()
    workload.optimizer.step()


def _cpu_allocator(workload: Workload, inputs: Any, targets: Any) -> int:
    """The most bytes that the CPU allocator had given out during a step, above those before it."""
    from torch.profiler import ProfilerActivity, profile

    workload.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _step(workload, inputs, targets)
    results = profiler.profiler.kineto_results
    changes = sorted((e.start_ns(), e.nbytes()) for e in results.events() if e.name() == "[memory]")
    return max(itertools.accumulate(nbytes for _, nbytes in changes), default=0)


def _allocator(workload: Workload, inputs: Any, targets: Any) -> dict[str, Metric]:
    """The CUDA allocator's figures for one step, by phase, and NVML's for the whole process."""
    from revbench.probes.nvml import process_bytes

    found: dict[str, Metric] = {}
    workload.optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    found["steady_allocated_bytes"] = torch.cuda.memory_allocated()
    peaks: dict[str, int] = {"allocated": 0, "requested": 0, "reserved": 0}
    state: Any = None
    for phase in PHASES:
        torch.cuda.reset_peak_memory_stats()
        if phase == "forward":
            state = workload.forward(inputs, targets)
        elif phase == "backward":
            state.backward()
            state = None
        else:
            workload.optimizer.step()
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        for kind in peaks:
            peaks[kind] = max(peaks[kind], int(stats[f"{kind}_bytes.all.peak"]))
        found[f"{phase}_allocated_peak_bytes"] = int(stats["allocated_bytes.all.peak"])
    found["allocated_activation_peak_bytes"] = peaks["allocated"] - int(found["steady_allocated_bytes"] or 0)
    found |= {f"{kind}_peak_bytes": value for kind, value in peaks.items()}
    return found | process_bytes(torch.cuda.current_device())


def _resident_bytes(field: str) -> int | None:
    """A field of ``/proc/self/status`` in bytes; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
