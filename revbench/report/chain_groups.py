"""The chains by which libraries are compared: which cases stand beside each other, and their ratios."""

from __future__ import annotations

import statistics

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.probes.declared import FLOPS_OF_STEP, MEMORY, TIME_INTERLEAVED
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence, Statistic


def chain_groups(evidence: Evidence) -> dict[Case, list[Case]]:
    """Returns cases by what they are compared with: plain autograd on the same blocks, uncompiled."""
    groups: dict[Case, list[Case]] = {}
    for case in evidence.cases(MEMORY, FLOPS_OF_STEP, TIME_INTERLEAVED):
        chain = Chain.of(case)
        if chain is not None and chain.names_library:
            groups.setdefault(case.stored().replace(model=chain.ours(), compile=False), []).append(case)
    return groups


def kind_of(case: Case) -> str:
    """Says of which blocks a chain is made."""
    chain = Chain.of(case)
    return (chain.kind if chain is not None else None) or MISSING


def time_ratio(evidence: Evidence, case: Case, base: Case) -> Statistic | None:
    """Returns the ratio of steps that were timed in turn in one process, launch by launch."""
    step = TIME_INTERLEAVED["step_seconds"].name
    bases = {row.repeat: row.number(step) for row in evidence.launches(base, TIME_INTERLEAVED)}
    ratios = [
        seconds / below
        for row in evidence.launches(case, TIME_INTERLEAVED)
        if (seconds := row.number(step)) is not None and (below := bases.get(row.repeat))
    ]
    return Statistic(statistics.median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None
