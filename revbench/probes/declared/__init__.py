"""The probes of a step and their metrics, each declared once: names in rows, units, kinds, and what people call them."""

from __future__ import annotations

from revbench.probes.declared.cost import (
    ALLOCATOR_KINDS,
    ENERGY,
    FLOPS_OF_STEP,
    LEAK,
    MEMORY,
    MEMORY_HISTORY,
    NVML,
    PARAMETERS,
    PHASES,
    TIME,
)
from revbench.probes.declared.exactness import DETERMINISM, DRIFT, LIPSCHITZ

__all__ = [
    "ALLOCATOR_KINDS",
    "DETERMINISM",
    "DRIFT",
    "ENERGY",
    "FLOPS_OF_STEP",
    "LEAK",
    "LIPSCHITZ",
    "MEMORY",
    "MEMORY_HISTORY",
    "NVML",
    "PARAMETERS",
    "PHASES",
    "TIME",
]
