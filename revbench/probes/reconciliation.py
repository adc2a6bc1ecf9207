"""From live tensors to what the system shows: one chain of values in which every gap has a name.

On a GPU: live tensors, requested, allocated, reserved (PyTorch's allocator), process, device (NVML). On the CPU: live
tensors, unique set, resident set of the worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from revbench.probes.measurement import Value

LEVELS: Mapping[str, str] = {
    "peak_bytes": "live tensors", "requested_peak_bytes": "requested", "allocated_peak_bytes": "allocated",
    "reserved_peak_bytes": "reserved", "nvml_process_bytes": "process (NVML)", "nvml_device_used_bytes": "device (NVML)",
    "unique_set_bytes": "unique set", "rss_bytes": "resident set",
}  # fmt: skip


class Gap(NamedTuple):
    """The difference of two neighbours in the chain, all of them peaks or high-water marks of the worker.

    Attributes:
        name: of its metric.
        below, above: names of the metrics that it lies between, keys of `LEVELS`.
        head: what tables and pictures call it.
        words: what it is made of.
    """

    name: str
    below: str
    above: str
    head: str
    words: str


GPU_CHAIN = (
    Gap("workspace_bytes", "peak_bytes", "requested_peak_bytes", "workspace", "workspace of kernels, cuDNN and cuBLAS"),
    Gap(
        "rounding_bytes", "requested_peak_bytes", "allocated_peak_bytes", "rounding",
        "rounding of the allocator, remainders that it does not split off",
    ),
    Gap("cache_bytes", "allocated_peak_bytes", "reserved_peak_bytes", "cache, fragmentation", "cache and fragmentation"),
    Gap("context_bytes", "reserved_peak_bytes", "nvml_process_bytes", "context", "CUDA context and libraries"),
    Gap("others_bytes", "nvml_process_bytes", "nvml_device_used_bytes", "other processes", "other processes"),
)  # fmt: skip
CPU_CHAIN = (
    Gap(
        "interpreter_bytes", "peak_bytes", "unique_set_bytes", "Python, malloc",
        "Python, libraries, workspace, malloc's reserve",
    ),
    Gap("shared_bytes", "unique_set_bytes", "rss_bytes", "shared", "shared with the server it was forked from"),
)  # fmt: skip


def reconcile(metrics: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the gaps between a row's values of memory.

    A gap is the difference of two peaks, which need not stand at the same moment: it can be smaller than what was
    there at that moment, or negative.

    Args:
        metrics: of the probe ``memory``.

    Returns:
        A metric for each gap of the chain of the row's device; None with the reason where a value is missing.
    """
    found: dict[str, Value] = {}
    for gap in GPU_CHAIN if "requested_peak_bytes" in metrics else CPU_CHAIN:
        low, high = metrics.get(gap.below), metrics.get(gap.above)
        if isinstance(low, int) and isinstance(high, int):
            found[gap.name] = high - low
        else:
            missing = gap.below if not isinstance(low, int) else gap.above
            found[gap.name] = None
            found[f"{gap.name}_reason"] = f"{missing}: {metrics.get(f'{missing}_reason', 'not measured')}"
    return found
