"""Cases that run under a memory limit, each with the largest batch that fits: what was timed of them, and how fast that is."""

from __future__ import annotations

from revbench.case import Case
from revbench.compare.ratios import Ratio
from revbench.prediction.declared import FIT
from revbench.probes.declared import TIME
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence

_STEP = TIME["step_seconds"]


def batch_of(evidence: Evidence, case: Case) -> str:
    """Returns the batch that was timed, or why none was."""
    timed = timed_within(evidence, case)
    if timed is not None:
        return f"{timed.batch_size:,}"
    size = evidence.value(case, FIT["largest_batch_size"])
    if size is None:
        return evidence.failure(case, FIT) or MISSING
    failures = [evidence.failure(c, TIME) for c in _tried(evidence, case)]
    return "none fits" if size.median < 1 else next((f for f in failures if f), MISSING)


def timed_within(evidence: Evidence, case: Case) -> Case | None:
    """Returns the case that was timed for this limit: the largest batch that did not run out of memory."""
    ran = [c for c in _tried(evidence, case) if evidence.value(c, _STEP)]
    return max(ran, key=lambda c: c.batch_size, default=None)


def _tried(evidence: Evidence, case: Case) -> list[Case]:
    return [c for c in evidence.cases(TIME) if c.replace(batch_size=case.batch_size) == case]


def speed_ratio(evidence: Evidence, case: Case, base: Case) -> Ratio | None:
    """Returns how many times as many items a second a case comes to as another."""
    ours, theirs = timed_within(evidence, case), timed_within(evidence, base)
    found = evidence.time_ratio(theirs, ours) if ours is not None and theirs is not None else None
    return found.scaled(ours.items / theirs.items) if found and ours and theirs else None


def items_per_second(evidence: Evidence, case: Case) -> float | None:
    """Returns images or tokens a second of what was timed for this limit."""
    timed = timed_within(evidence, case)
    step = evidence.value(timed, _STEP) if timed is not None else None
    return timed.items / step.median if timed is not None and step and step.median else None
