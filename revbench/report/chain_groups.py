"""Which cases stand in tables of their own, and which chains of different libraries stand beside each other."""

from __future__ import annotations

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.pairs import group_of
from revbench.probes.declared import FLOPS_OF_STEP, MEMORY, TIME
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence


def chain_groups(evidence: Evidence) -> dict[Case, list[Case]]:
    """Returns cases by what they are compared with: plain autograd on the same blocks, uncompiled."""
    groups: dict[Case, list[Case]] = {}
    for case in evidence.cases(MEMORY, FLOPS_OF_STEP, TIME):
        chain = Chain.of(case)
        if chain is not None and chain.names_library:
            groups.setdefault(group_of(case), []).append(case)
    return groups


def kind_of(case: Case) -> str:
    """Says of which blocks a chain is made."""
    chain = Chain.of(case)
    return (chain.kind if chain is not None else None) or MISSING


def has_its_own_table(evidence: Evidence, case: Case) -> bool:
    """Tells whether a case is of a chain of blocks, runs under a memory limit, or is of a family that is drawn against depth."""
    return Chain.of(case) is not None or case.memory_limit_bytes > 0 or case in evidence.against_depth
