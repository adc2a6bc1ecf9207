"""From live tensors to what the system shows: the chain of a case's numbers."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.case import Case
from revbench.probes.declared import MEMORY
from revbench.probes.reconciliation import CPU_CHAIN, GPU_CHAIN, Gap
from revbench.report.evidence import Evidence


def chain_of(case: Case) -> Sequence[Gap]:
    """Returns each gap of a case's device."""
    return GPU_CHAIN if case.on_gpu else CPU_CHAIN


def reconciled_cases(evidence: Evidence) -> list[Case]:
    """Returns the networks of the catalogue that have these numbers and run under no limit, as they stand in the memory table."""
    return [
        case
        for case in evidence.cases(MEMORY)
        if not case.names_factory
        and not case.memory_limit_bytes
        and case not in evidence.against_depth
        and evidence.value(case, MEMORY[chain_of(case)[0].name]) is not None
    ]
