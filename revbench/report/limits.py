"""What each strategy achieves within the same memory."""

from __future__ import annotations

from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence, Statistic
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_bytes, human_seconds


def limit_table(evidence: Evidence) -> Table | None:
    """Images per second of each strategy, with the largest batch that fits into a memory limit."""
    cases = [case for case in evidence.cases("fit") if case.memory_limit_bytes]
    rows: list[list[str]] = []
    breaks: list[int] = []
    for limit, first in dict.fromkeys((case.memory_limit_bytes, _pair(case)) for case in cases):
        group = [c for c in cases if (c.memory_limit_bytes, _pair(c)) == (limit, first)]
        breaks.append(len(rows))
        for case in group:
            size = evidence.value(case, "fit", "largest_batch_size")
            peak = evidence.value(case, "fit", "predicted_peak_bytes")
            timed = _timed(evidence, case)
            ours, base = (_images_per_second(evidence, timed_) for timed_ in (timed, _timed(evidence, case.stored())))
            step = evidence.value(timed, "time", "step_seconds") if timed else None
            rows.append(
                [
                    human_bytes(limit), title_of(case.model), strategy_of(case),
                    _batch(evidence, case, timed, size),
                    human_bytes(peak.median) if peak else MISSING,
                    human_seconds(step.median) if step else MISSING,
                    f"{ours:,.0f}" if ours else MISSING,
                    f"{ours / base:.2f} ×" if ours and base else MISSING,
                ]
            )  # fmt: skip
    if not rows:
        return None
    one = cases[0]
    margins = {s.median for c in cases if (s := evidence.value(c, "fit", "margin"))}
    margin = f", {max(margins):.0%} of it left free" if any(margins) else ""
    enforced = "PyTorch's allocator gives out no more" if one.device != "cpu" else "live tensors; nothing enforces it"
    batches = "Batch: the largest whose predicted peak fits; the time is measured."
    if one.device != "cpu":
        batches += " One that did not fit after all was made smaller, so the predicted peak is that of the first try."
    notes = [f"{circumstances(one, batch=False)}. Limit: {enforced}{margin}. {batches}"]
    columns = ("Limit", "Network", "Strategy", "Batch", "Predicted peak", "Step", "Images a second", "to stored")
    return Table("Images per second within the same memory", columns, rows, 3, notes, breaks[1:])


def _batch(evidence: Evidence, case: Case, timed: Case | None, size: Statistic | None) -> str:
    """The batch that was timed, or why none was."""
    if timed is not None:
        return f"{timed.batch_size:,}"
    if size is None:
        return evidence.failure(case, "fit") or MISSING
    failures = [evidence.failure(c, "time") for c in _tried(evidence, case)]
    return "none fits" if size.median < 1 else next((f for f in failures if f), MISSING)


def _pair(case: Case) -> str:
    known = CATALOGUE.get(case.model)
    return known.pair if known is not None and known.family == "revnet" else case.model


def _timed(evidence: Evidence, case: Case) -> Case | None:
    """The case that was timed for this limit: the largest batch that did not run out of memory."""
    ran = [c for c in _tried(evidence, case) if evidence.value(c, "time", "step_seconds")]
    return max(ran, key=lambda c: c.batch_size, default=None)


def _tried(evidence: Evidence, case: Case) -> list[Case]:
    return [c for c in evidence.cases("time") if c.replace(batch_size=case.batch_size) == case]


def _images_per_second(evidence: Evidence, case: Case | None) -> float | None:
    step: Statistic | None = evidence.value(case, "time", "step_seconds") if case else None
    return case.batch_size / step.median if case and step and step.median else None
