"""Bytes that a training step needs, by phase: live tensors, resident set, the CUDA allocator's and NVML's values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from revbench.probes.cuda_memory import allocator_metrics
from revbench.probes.declared import PHASES
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.reconciliation import reconcile
from revbench.probes.tracked_step import TrackedStep, track_step
from revbench.workload import Workload

_PEAKS = (
    "peak_bytes", *(f"{phase}_peak_bytes" for phase in PHASES), *(f"{phase}_peak_place" for phase in PHASES),
    "activation_peak_bytes", "activation_peak_without_gradients_bytes", "kept_bytes",
)  # fmt: skip
_TRACKED = (*_PEAKS, "steady_bytes", "parameter_bytes", "gradient_bytes", "optimizer_state_bytes", "batch_bytes")
# Live tensors may be so many times what the allocator gave out, whose events of one nanosecond have no order.
_CONTRADICTION = 1.01


def measure_memory(workload: Workload, *, progress: Progress, timeline: bool = True) -> Measurement:
    """Measure a step's memory in passes of their own: first the untouched process, then the tracker.

    Each pass takes one step to create the optimizer's state, then the step that is measured. Parameters,
    buffers, optimizer state and the batch are alive throughout (``steady_bytes``); gradients are made by each
    step, since it begins with ``zero_grad(set_to_none=True)``.

    Args:
        workload: what to measure.
        progress: not called: the probe is over in two steps.
        timeline: keep the live bytes after each operation.

    Returns:
        Metrics of live tensors: ``peak_bytes`` and ``forward_peak_bytes``, ``backward_peak_bytes``,
        ``optimizer_peak_bytes``, with the module at which each stands (``…_peak_place``); ``steady_bytes``,
        ``activation_peak_bytes`` (the peak above the steady state), ``kept_bytes`` (between forward and backward),
        ``parameter_bytes``, ``gradient_bytes``, ``optimizer_state_bytes``, ``batch_bytes``; all None for compiled cases.
        ``allocated_activation_peak_bytes``: what the allocator gave out above the steady state, with the memory that
        a kernel takes and gives back inside one operation; where live tensors are said to be more than that, one of the
        two is wrong, and the peaks of live tensors are None. ``rss_peak_bytes`` (the worker's high-water mark),
        ``rss_before_bytes``; on the CPU, after an untouched step, ``unique_set_bytes`` and ``rss_bytes``; on a GPU those of
        `allocator_metrics`. The gaps between them: `revbench.probes.reconciliation.reconcile`.
        Series ``operation``, ``live_bytes``, ``gradient_bytes``, ``phase``: one row for each operation of the step.
    """
    metrics: dict[str, Value] = {"rss_before_bytes": _resident_bytes("VmRSS")}
    inputs, targets = workload.batch()
    workload.step(inputs, targets)
    if workload.case.on_gpu:
        metrics |= allocator_metrics(workload, inputs, targets)
    else:
        workload.step(inputs, targets)
        metrics |= _unique_set()
        metrics["rss_bytes"] = _resident_bytes("VmRSS")
    metrics["rss_peak_bytes"] = _resident_bytes("VmHWM")

    if not workload.case.on_gpu:
        metrics["allocated_activation_peak_bytes"] = _cpu_allocator(workload, inputs, targets)
    if workload.case.compile or workload.case.strategy == "torch_budget":
        reason = "compiled code makes tensors that the tracker can't see"
        metrics |= dict.fromkeys(_TRACKED) | {f"{name}_reason": reason for name in _TRACKED}
        return Measurement(metrics | reconcile(metrics))
    step = track_step(workload, inputs, targets)
    metrics |= tracked_metrics(step)
    allocated = metrics.get("allocated_activation_peak_bytes")
    if (impossible := contradiction(step.activation_peak_bytes, allocated)) is not None:
        metrics |= dict.fromkeys(_PEAKS) | {f"{name}_reason": impossible for name in _PEAKS}
        timeline = False
    return Measurement(metrics | reconcile(metrics), series=step.timeline if timeline else {})


def contradiction(live: int, allocated: Value) -> str | None:
    """Returns why live tensors can't be what was counted: no tensor lives in memory that no allocator gave out.

    Args:
        live: bytes of live tensors above the steady state.
        allocated: what the allocator gave out above it, if that is known.
    """
    if not isinstance(allocated, int) or live <= _CONTRADICTION * allocated:
        return None
    return (
        f"{live} bytes of live tensors were counted, but the allocator gave out {allocated}: something gives memory back, or"
        " gets it elsewhere, where the tracker does not see it"
    )


def tracked_metrics(step: TrackedStep) -> dict[str, Value]:
    """Returns the tracker's values under the names that rows have for them."""
    return {
        **{f"{phase}_peak_bytes": value for phase, value in step.phase_peak_bytes.items()},
        **{f"{phase}_peak_place": value for phase, value in step.phase_peak_places.items()},
        "peak_bytes": step.peak_bytes, "steady_bytes": step.steady_bytes, "activation_peak_bytes": step.activation_peak_bytes,
        "activation_peak_without_gradients_bytes": step.activation_peak_without_gradients_bytes,
        "parameter_bytes": step.parameter_bytes, "gradient_bytes": step.gradient_bytes,
        "optimizer_state_bytes": step.optimizer_state_bytes, "batch_bytes": step.batch_bytes, "kept_bytes": step.kept_bytes,
    }  # fmt: skip


def _cpu_allocator(workload: Workload, inputs: Any, targets: Any) -> int:
    """Returns the most bytes that the CPU allocator had given out during a step, above those before it."""
    from torch._C._profiler import _EventType
    from torch.profiler import ProfilerActivity, profile

    workload.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        workload.step(inputs, targets)
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    changes: list[tuple[int, int, int]] = []
    while waiting:
        event = waiting.pop()
        waiting += event.children
        if event.tag == _EventType.Allocation:
            changes.append((event.start_time_ns, event.extra_fields.alloc_size, event.extra_fields.ptr))
    alive = most = 0
    made: set[int] = set()
    for _, nbytes, address in sorted(changes):
        if nbytes > 0:
            made.add(address)
        elif address not in made:  # what an earlier step left, a module's attention weights, say
            continue
        alive += nbytes
        most = max(most, alive)
    return most


def _unique_set() -> dict[str, Value]:
    """Returns memory of this process that no other shares."""
    try:
        return {"unique_set_bytes": int(psutil.Process().memory_full_info().uss)}
    except psutil.Error as error:
        return {"unique_set_bytes": None, "unique_set_bytes_reason": f"the system does not say: {error}"}


def _resident_bytes(field: str) -> int | None:
    """Returns a field of ``/proc/self/status`` in bytes; None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
