"""What NVML says of this process and of its GPU. The device is found by UUID, never by index.

A figure that can't be had (no permission, a container's process numbers, MIG, WSL) is None with the reason
beside it, never 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pynvml
import torch

from revbench.probes.found import Metric


@contextmanager
def _device(index: int) -> Iterator[Any]:
    """NVML's handle of torch's device of this index."""
    pynvml.nvmlInit()
    try:
        yield pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
    finally:
        pynvml.nvmlShutdown()


def driver_version() -> str | None:
    """The NVIDIA driver's version; None without NVML."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def process_bytes(index: int) -> dict[str, Metric]:
    """Bytes that NVML counts to this process and to the device.

    After warm-up this is what the allocator reserved plus the CUDA context, not the tensors: in a fresh
    process for each case it is that case's high-water mark.

    Returns:
        ``nvml_process_bytes`` and ``nvml_device_used_bytes``; where one is None, its ``_reason`` says why.
    """
    found: dict[str, Metric] = {"nvml_process_bytes": None, "nvml_device_used_bytes": None}
    try:
        with _device(index) as handle:
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
            found["nvml_device_used_bytes"] = int(memory.used)
            own = [p for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == os.getpid()]
            if not own:
                found["nvml_process_bytes_reason"] = "NVML does not list this process (another process-number space?)"
            elif own[0].usedGpuMemory is None:
                found["nvml_process_bytes_reason"] = "NVML hides the memory of processes here (permission, MIG or WSL)"
            elif int(own[0].usedGpuMemory) < torch.cuda.memory_reserved(index):
                # Less than this process holds: another process has the same number in NVML's space.
                found["nvml_process_bytes_reason"] = "the process of this number that NVML lists is another one"
            else:
                found["nvml_process_bytes"] = int(own[0].usedGpuMemory)
    except pynvml.NVMLError as error:
        for name in ("nvml_process_bytes", "nvml_device_used_bytes"):
            if found[name] is None:
                found[f"{name}_reason"] = f"NVML: {error}"
    return found


def clocks(index: int) -> dict[str, Metric]:
    """The clock of the multiprocessors, the temperature and the throttle reasons, now.

    Returns:
        ``sm_clock_megahertz``, ``temperature_celsius`` and ``throttle_reasons`` (NVML's bit mask); where one is
        None, its ``_reason`` says why.
    """
    readers = {
        "sm_clock_megahertz": lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM),
        "temperature_celsius": lambda h: pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU),
        "throttle_reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    }
    found: dict[str, Metric] = {}
    for name, read in readers.items():
        try:
            with _device(index) as handle:
                found[name] = int(read(handle))
        except pynvml.NVMLError as error:
            found[name], found[f"{name}_reason"] = None, f"NVML: {error}"
    return found
