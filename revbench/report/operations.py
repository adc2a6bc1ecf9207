"""How operations are shown: a count that is known not to be complete says so, and has no ratio."""

from __future__ import annotations

from collections.abc import Iterable

from revbench.case import Case
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence
from revbench.titles import title_of
from revbench.units import human_flops


def operations_cell(evidence: Evidence, case: Case) -> str:
    """Operations of a step; "≥" before those that do not have all operators in them."""
    found = evidence.value(case, "flops", "step_flops")
    if found is None:
        return MISSING
    return ("≥ " if uncounted(evidence, case) else "") + human_flops(found.median)


def operations_ratio(evidence: Evidence, case: Case, base: Case) -> float | None:
    """A case's operations over those of another; None unless both are complete."""
    if uncounted(evidence, case) or uncounted(evidence, base):
        return None
    return evidence.ratio(case, base, "flops", "step_flops")


def uncounted(evidence: Evidence, case: Case) -> str | None:
    """The operators that were not counted, in words."""
    words = (row.metrics.get("uncounted_operators") for row in evidence.launches(case, "flops"))
    return next((str(word) for word in words if word), None)


def uncounted_note(evidence: Evidence, cases: Iterable[Case]) -> list[str]:
    """A sentence for under a table, if one of its counts is not complete."""
    found = {title_of(case.model): words for case in cases if (words := uncounted(evidence, case))}
    named = "; ".join(f"{model}: {words}" for model, words in found.items())
    return [f"≥: operators that multiply and for which there is no formula are not counted ({named})."] if found else []
