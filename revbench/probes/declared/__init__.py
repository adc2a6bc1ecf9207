"""Our probes and their metrics, each declared once: names in rows, units, kinds, and what people call them."""

from __future__ import annotations

from collections.abc import Mapping

from revbench.probes.declaration import Probe
from revbench.probes.declared.cost import (
    ALLOCATOR_KINDS,
    ENERGY,
    FIT,
    FLOPS_OF_STEP,
    LEAK,
    MEMORY,
    MEMORY_HISTORY,
    NVML,
    PARAMETERS,
    PHASES,
    TIME,
    TIME_INTERLEAVED,
)
from revbench.probes.declared.exactness import DETERMINISM, DRIFT, LIPSCHITZ
from revbench.probes.declared.trained import TRAINING

__all__ = [
    "ALLOCATOR_KINDS",
    "BY_NAME",
    "DETERMINISM",
    "DRIFT",
    "ENERGY",
    "FIT",
    "FLOPS_OF_STEP",
    "LEAK",
    "LIPSCHITZ",
    "MEMORY",
    "MEMORY_HISTORY",
    "NVML",
    "PARAMETERS",
    "PHASES",
    "PROBES",
    "TIME",
    "TIME_INTERLEAVED",
    "TRAINING",
]

# Those that a command offers first, the commonest first.
PROBES = (
    TIME, MEMORY, FLOPS_OF_STEP, DRIFT, PARAMETERS, LIPSCHITZ, DETERMINISM, LEAK, NVML, MEMORY_HISTORY, ENERGY,
    TIME_INTERLEAVED, FIT, TRAINING,
)  # fmt: skip
BY_NAME: Mapping[str, Probe] = {probe.name: probe for probe in PROBES}
