"""The chains by which libraries are compared: which cases stand beside each other, and their ratios."""

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
