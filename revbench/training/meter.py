"""Time and memory of each training step, taken without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import torch
from torch import Tensor

from revbench.case import is_gpu
from revbench.probes.measurement import Value
from revbench.probes.nvml import Gpu, Reading
from revbench.probes.sampler import Sampler

NVML_INTERVAL_SECONDS = 0.5  # the allocator's reserve grows in the first steps and seldom after

Values = dict[str, Value]


class Meter:
    """Measures steps; a context manager around all of them.

    On a GPU by device events and the allocator's peak, with NVML's value for this process read now and then; else by the
    monotonic clock and the resident set.

    Args:
        device: of the steps.
    """

    def __init__(self, device: str) -> None:
        self._cuda = is_gpu(device)
        self._open = ExitStack()
        self._nvml = Reading(None, "NVML sees GPUs only")
        self._gpu: Gpu | None = None

    def __enter__(self) -> Meter:
        if self._cuda:
            self._index = torch.cuda.current_device()  # another thread's may be another
            self._gpu = self._open.enter_context(Gpu.of_torch(self._index))
            self._open.enter_context(Sampler(self._look, NVML_INTERVAL_SECONDS))
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def begin(self) -> None:
        """Begin a step."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._begin = torch.cuda.Event(enable_timing=True)
            self._begin.record()
        else:
            self._start = time.perf_counter()

    def end(self) -> Callable[[], Values]:
        """End a step.

        Returns:
            Gives ``step_seconds``, ``peak_bytes`` and ``nvml_process_peak_bytes``; on a GPU it waits for the step to end.
        """
        if not self._cuda:
            found: Values = {
                "step_seconds": time.perf_counter() - self._start, "peak_bytes": psutil.Process().memory_info().rss
            }  # fmt: skip
            return lambda: found
        begin, end = self._begin, torch.cuda.Event(enable_timing=True)
        end.record()
        peak = torch.cuda.max_memory_allocated()

        def read() -> Values:
            end.synchronize()
            seconds = begin.elapsed_time(end) / 1e3
            return {"step_seconds": seconds, "peak_bytes": peak, "nvml_process_peak_bytes": self._nvml.value}

        return read

    def high_water(self) -> Values:
        """Returns ``nvml_process_peak_bytes`` of this process so far, or null with the reason."""
        if self._gpu is not None:
            self._look()
        return self._nvml.metrics("nvml_process_peak_bytes")

    def _look(self) -> int | float | None:
        assert self._gpu is not None
        now = self._gpu.process_bytes(least=torch.cuda.memory_allocated(self._index))
        if now.value is None:
            if self._nvml.value is None:
                self._nvml = now
        elif self._nvml.value is None or now.value > self._nvml.value:
            self._nvml = now
        return now.value


def values_later(tensor: Tensor) -> Callable[[], list[float]]:
    """Begins to fetch the values of a tensor from its device.

    Args:
        tensor: of one dimension, just computed.

    Returns:
        Gives the values. It waits until the device has computed them, and not for what was put into its queue since, as
        `Tensor.tolist` would.
    """
    if tensor.device.type != "cuda":
        return tensor.tolist
    values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    values.copy_(tensor, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def read() -> list[float]:
        there.synchronize()
        return values.tolist()

    return read
