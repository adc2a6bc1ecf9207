"""From live tensors to what the system shows: the chain of a case's numbers, and what its members are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from revbench.case import Case
from revbench.probes.declared import MEMORY
from revbench.probes.reconciliation import CPU_CHAIN, GPU_CHAIN
from revbench.report.evidence import Evidence

LEVELS: Mapping[str, str] = {
    "peak_bytes": "live tensors", "requested_peak_bytes": "requested", "allocated_peak_bytes": "allocated",
    "reserved_peak_bytes": "reserved", "nvml_process_bytes": "process (NVML)", "nvml_device_used_bytes": "device (NVML)",
    "unique_set_bytes": "unique set", "rss_bytes": "resident set",
}  # fmt: skip
SHORT: Mapping[str, str] = {
    "workspace_bytes": "workspace", "rounding_bytes": "rounding", "cache_bytes": "cache, fragmentation",
    "context_bytes": "context", "others_bytes": "other processes", "interpreter_bytes": "Python, malloc",
    "shared_bytes": "shared",
}  # fmt: skip

MemoryChain = Sequence[tuple[str, str, str]]


def chain_of(case: Case) -> MemoryChain:
    """Returns each gap of a case's device: its metric, and the metrics that it lies between."""
    return GPU_CHAIN if case.on_gpu else CPU_CHAIN


def reconciled_cases(evidence: Evidence) -> list[Case]:
    """Returns the networks of the catalogue that have these numbers, as they stand in the memory table."""
    return [
        case
        for case in evidence.cases(MEMORY)
        if not case.names_factory and evidence.value(case, MEMORY[chain_of(case)[0][0]]) is not None
    ]
