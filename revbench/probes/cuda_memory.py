"""What PyTorch's CUDA allocator and NVML say of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from revbench.probes.declared import ALLOCATOR_KINDS, PHASES
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.nvml import Gpu, Reading
from revbench.probes.sampler import Sampler
from revbench.workload import Workload


def allocator_metrics(workload: Workload, inputs: Any, targets: Any) -> dict[str, Value]:
    """Measures one step by phase, in a process that has taken a step before, and NVML's values after it.

    Returns:
        For each phase and kind (`revbench.probes.declared.ALLOCATOR_KINDS`) ``<phase>_<kind>_peak_bytes`` and, at its end,
        ``<phase>_<kind>_bytes``; over the step ``<kind>_peak_bytes``, ``steady_allocated_bytes``,
        ``allocated_activation_peak_bytes``, ``allocation_retries``, ``allocator_ooms``, ``nvml_process_bytes`` and
        ``nvml_device_used_bytes``.
    """
    found: dict[str, Value] = {}
    workload.optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    steady = torch.cuda.memory_allocated()
    peaks = dict.fromkeys(ALLOCATOR_KINDS, 0)
    loss: Any = None
    for phase in PHASES:
        torch.cuda.reset_peak_memory_stats()
        if phase == "forward":
            loss = workload.forward(inputs, targets)
        elif phase == "backward":
            loss.backward()
            loss = None
        else:
            workload.optimizer.step()
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        for kind in ALLOCATOR_KINDS:
            found[f"{phase}_{kind}_peak_bytes"] = peak = int(stats[f"{kind}_bytes.all.peak"])
            found[f"{phase}_{kind}_bytes"] = int(stats[f"{kind}_bytes.all.current"])
            peaks[kind] = max(peaks[kind], peak)
    found |= {f"{kind}_peak_bytes": value for kind, value in peaks.items()}
    found |= {
        "steady_allocated_bytes": steady, "allocated_activation_peak_bytes": peaks["allocated"] - steady,
        "allocation_retries": int(stats["num_alloc_retries"]), "allocator_ooms": int(stats["num_ooms"]),
    }  # fmt: skip
    with Gpu.of_torch(torch.cuda.current_device()) as gpu:
        found |= gpu.process_bytes(least=torch.cuda.memory_reserved()).metrics("nvml_process_bytes")
        found |= gpu.device_bytes().metrics("nvml_device_used_bytes")
    return found


def measure_memory_history(workload: Workload, *, progress: Progress) -> Measurement:
    """Returns the allocator's own history of one step.

    Args:
        workload: on a GPU, else the row is ``unsupported``.
        progress: not called.

    Returns:
        Metrics ``requested_peak_bytes``, ``allocated_peak_bytes`` and ``reserved_peak_bytes`` of the step; series ``seconds``,
        ``requested_bytes``, ``reserved_bytes``: one line for each change. The history knows the sizes that were asked for,
        not those given.
    """
    _only_on_a_gpu(workload, "PyTorch keeps a history of its CUDA allocator only")
    inputs, targets = workload.batch()
    workload.step(inputs, targets)
    workload.optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_stats()
    torch.cuda.memory._record_memory_history(context=None)
    try:
        workload.step(inputs, targets)
        torch.cuda.synchronize()
        snapshot = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    after = torch.cuda.memory_stats()
    trace = snapshot["device_traces"][torch.cuda.current_device()]
    starts = (int(before[f"{kind}_bytes.all.current"]) for kind in ("requested", "reserved"))
    return Measurement(
        {f"{kind}_peak_bytes": int(after[f"{kind}_bytes.all.peak"]) for kind in ALLOCATOR_KINDS},
        series=read_history(trace, *starts),
    )


def read_history(trace: Iterable[Mapping[str, Any]], requested: int, reserved: int) -> dict[str, list[Any]]:
    """Turn the allocator's events into what was requested and reserved after each.

    Args:
        trace: of ``torch.cuda.memory._snapshot()``.
        requested, reserved: bytes before the first event.
    """
    effects = {
        "alloc": (1, 0), "free_completed": (-1, 0), "segment_alloc": (0, 1), "segment_free": (0, -1), "segment_map": (0, 1),
        "segment_unmap": (0, -1),
    }  # fmt: skip
    columns: dict[str, list[Any]] = {"seconds": [], "requested_bytes": [], "reserved_bytes": []}
    began: float | None = None
    for event in trace:
        if event["action"] not in effects:
            continue
        began = event["time_us"] if began is None else began
        to_requested, to_reserved = effects[event["action"]]
        requested += to_requested * event["size"]
        reserved += to_reserved * event["size"]
        columns["seconds"].append((event["time_us"] - began) / 1e6)
        columns["requested_bytes"].append(requested)
        columns["reserved_bytes"].append(reserved)
    return columns


def measure_nvml(
    workload: Workload,
    *,
    progress: Progress,
    device_before: Reading | None = None,
    interval_seconds: float = 0.01,
    rounds: int = 10,
    block_seconds: float = 0.3,
) -> Measurement:
    """Returns NVML's value for this process while it trains, and what asking for it costs.

    Blocks of steps with and without the sampler take turns.

    Args:
        workload: on a GPU, else the row is ``unsupported``.
        progress: not called.
        device_before: bytes in use on the whole GPU before this process used it.
        interval_seconds: between two readings.
        rounds: blocks of each kind.
        block_seconds: how long a block takes at least.

    Returns:
        Metrics ``nvml_process_peak_bytes`` (the high-water mark of the process), ``sampler_interval_seconds``,
        ``sampler_slowdown`` (what a step takes more while it samples, as a share), and ``nvml_device_before_bytes`` and
        ``nvml_device_after_bytes`` of the whole GPU. Samples ``sampler_slowdown``, one a pair of blocks. Series
        ``seconds``, ``nvml_process_bytes``.
    """
    _only_on_a_gpu(workload, "NVML sees GPUs only")
    inputs, targets = workload.batch()
    with Gpu.of_torch(torch.cuda.current_device()) as gpu:
        before = device_before or Reading(None, "it was not read before this process used the GPU")
        for _ in range(3):  # kernels are loaded, libraries made ready
            workload.step(inputs, targets)
        torch.cuda.synchronize()
        steps = 0
        began = time.perf_counter()
        while steps < 3 or time.perf_counter() - began < block_seconds:
            workload.step(inputs, targets)
            torch.cuda.synchronize()
            steps += 1
        slowdowns: list[float] = []
        readings: list[tuple[float, int | float | None]] = []
        start = time.perf_counter()
        for _ in range(rounds):
            bare = _block_seconds(workload, inputs, targets, steps)
            offset = time.perf_counter() - start
            with Sampler(lambda: gpu.process_bytes().value, interval_seconds) as sampler:
                sampled = _block_seconds(workload, inputs, targets, steps)
            readings += [(offset + seconds, value) for seconds, value in sampler.samples]
            slowdowns.append(sampled / bare - 1)
        last = gpu.process_bytes(least=torch.cuda.memory_reserved())
        metrics = last.metrics("nvml_process_peak_bytes")
        if last.value is not None:
            metrics["nvml_process_peak_bytes"] = max(
                [last.value, *(value for _, value in readings if value is not None)]
            )
        metrics |= before.metrics("nvml_device_before_bytes") | gpu.device_bytes().metrics("nvml_device_after_bytes")
    metrics |= {"sampler_interval_seconds": interval_seconds, "sampler_slowdown": statistics.median(slowdowns)}
    series: dict[str, list[Value]] = {
        "seconds": [seconds for seconds, _ in readings], "nvml_process_bytes": [value for _, value in readings]
    }  # fmt: skip
    return Measurement(metrics, {"sampler_slowdown": slowdowns}, series)


def _block_seconds(workload: Workload, inputs: Any, targets: Any, steps: int) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(steps):
        workload.step(inputs, targets)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def _only_on_a_gpu(workload: Workload, why: str) -> None:
    if not workload.case.on_gpu:
        raise NotImplementedError(why)
