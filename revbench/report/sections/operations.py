"""How operations are shown: a count that is known not to be complete says so, and has no ratio."""

from __future__ import annotations

from collections.abc import Iterable

from revbench.case import Case
from revbench.case.labels import network_name
from revbench.probes.declared import FLOPS_OF_STEP
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence

_STEP, _UNCOUNTED = FLOPS_OF_STEP["step_flops"], FLOPS_OF_STEP["uncounted_operators"]


def operations_cell(evidence: Evidence, case: Case) -> str:
    """Returns the operations of a step; "≥" before those that do not have all operators in them."""
    found = evidence.value(case, _STEP)
    if found is None:
        return MISSING
    return ("≥ " if evidence.word(case, _UNCOUNTED) else "") + _STEP.unit.show(found.median)


def operations_ratio(evidence: Evidence, case: Case, base: Case) -> float | None:
    """Returns a case's operations over those of another; None unless both are complete."""
    if evidence.word(case, _UNCOUNTED) or evidence.word(base, _UNCOUNTED):
        return None
    return evidence.ratio(case, base, _STEP)


def uncounted_note(evidence: Evidence, cases: Iterable[Case]) -> list[str]:
    """Returns a sentence for under a table, if one of its counts is not complete."""
    found = {network_name(case): words for case in cases if (words := evidence.word(case, _UNCOUNTED))}
    named = "; ".join(f"{model}: {words}" for model, words in found.items())
    return [f"≥: operators that multiply and for which there is no formula are not counted ({named})."] if found else []
