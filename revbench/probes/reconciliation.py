"""From live tensors to what the system shows: one chain of values in which every gap has a name.

On a GPU: live tensors, requested, allocated, reserved (PyTorch's allocator), process, device (NVML). On the CPU: live
tensors, unique set, resident set of the worker.
"""

from __future__ import annotations

from collections.abc import Mapping

from revbench.probes.measurement import Value

# Each gap: its metric, and the values it lies between, all peaks or high-water marks of the worker.
GPU_CHAIN = (
    ("workspace_bytes", "peak_bytes", "requested_peak_bytes"),
    ("rounding_bytes", "requested_peak_bytes", "allocated_peak_bytes"),
    ("cache_bytes", "allocated_peak_bytes", "reserved_peak_bytes"),
    ("context_bytes", "reserved_peak_bytes", "nvml_process_bytes"),
    ("others_bytes", "nvml_process_bytes", "nvml_device_used_bytes"),
)
CPU_CHAIN = (
    ("interpreter_bytes", "peak_bytes", "unique_set_bytes"),
    ("shared_bytes", "unique_set_bytes", "rss_bytes"),
)
GAP_WORDS: Mapping[str, str] = {
    "workspace_bytes": "workspace of kernels, cuDNN and cuBLAS",
    "rounding_bytes": "rounding of the allocator, remainders that it does not split off",
    "cache_bytes": "cache and fragmentation",
    "context_bytes": "CUDA context and libraries",
    "others_bytes": "other processes",
    "interpreter_bytes": "Python, libraries, workspace, malloc's reserve",
    "shared_bytes": "shared with the server it was forked from",
}


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
    for gap, below, above in GPU_CHAIN if "requested_peak_bytes" in metrics else CPU_CHAIN:
        low, high = metrics.get(below), metrics.get(above)
        if isinstance(low, int) and isinstance(high, int):
            found[gap] = high - low
        else:
            missing = below if not isinstance(low, int) else above
            found[gap] = None
            found[f"{gap}_reason"] = f"{missing}: {metrics.get(f'{missing}_reason', 'not measured')}"
    return found
