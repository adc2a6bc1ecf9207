"""Within the same memory: what each strategy achieves."""

from __future__ import annotations

from revbench.case import Case
from revbench.case.labels import circumstances, strategy_of, title_of
from revbench.case.pairs import resnet_of
from revbench.compare.ratios import Ratio
from revbench.prediction.allocator import caveat
from revbench.prediction.declared import FIT
from revbench.probes.declared import TIME
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, value_cell, value_column, why_unstable, with_interval, words
from revbench.units import human_bytes

_STEP = TIME["step_seconds"]


def section(evidence: Evidence) -> Section | None:
    """Returns the table of all limits."""
    return Section.of("Within the same memory", [limit_table(evidence)])


def limit_table(evidence: Evidence) -> Table | None:
    """Returns images per second of each strategy, with the largest batch that fits into a memory limit."""
    cases = [case for case in evidence.cases(FIT) if case.memory_limit_bytes]
    if not cases:
        return None
    groups: dict[tuple[int, str], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.memory_limit_bytes, resnet_of(case)), []).append(case)

    def step(case: Case) -> str:
        timed = _timed(evidence, case)
        return value_cell(evidence, timed, _STEP) if timed is not None else MISSING

    def speed(case: Case) -> str:
        found = _images_per_second(evidence, case)
        return f"{found:,.0f}" if found else MISSING

    def to_stored(case: Case) -> str:
        return with_interval(_speed_ratio(evidence, case, case.stored()))

    columns = [
        words("Limit", lambda case: human_bytes(case.memory_limit_bytes)),
        words("Network", lambda case: title_of(case.model)),
        words("Strategy", strategy_of),
        Column("Batch", lambda case: _batch(evidence, case)),
        value_column(evidence, FIT["predicted_peak_bytes"]),
        Column("Step", step),
        Column("Images a second", speed),
        Column("to stored", to_stored),
    ]
    unstable = why_unstable(
        (f"{title_of(case.model)} {strategy_of(case)}", _speed_ratio(evidence, case, case.stored())) for case in cases
    )
    notes = [_note(evidence, cases), *unstable]
    return lay_out("Images per second within the same memory", columns, groups.values(), notes)


def _note(evidence: Evidence, cases: list[Case]) -> str:
    one = cases[0]
    margins = {s.median for c in cases if (s := evidence.value(c, FIT["margin"]))}
    margin = f", {max(margins):.0%} of it left free" if any(margins) else ""
    enforced = "PyTorch's allocator gives out no more" if one.on_gpu else "live tensors; nothing enforces it"
    batches = "Batch: the largest whose predicted peak fits; the time is measured."
    if one.on_gpu:
        batches += " One that did not fit after all was made smaller, so the predicted peak is that of the first try."
    batches += _caveat(evidence, one)
    return f"{circumstances(one, batch=False)}. Limit: {enforced}{margin}.{_less(evidence, cases)} {batches}"


def _caveat(evidence: Evidence, case: Case) -> str:
    said = caveat(evidence.environment.get("gpu_settings", {})) if case.on_gpu else None
    return f" {said}" if said else ""


def _less(evidence: Evidence, cases: list[Case]) -> str:
    """Says of limits that the GPU did not have whole what it had."""
    usable = {c.memory_limit_bytes: s.median for c in cases if (s := evidence.value(c, FIT["usable_limit_bytes"]))}
    less = [
        f" Of {human_bytes(limit)} the GPU had {human_bytes(int(had))}." for limit, had in usable.items() if had < limit
    ]
    return "".join(less)


def _batch(evidence: Evidence, case: Case) -> str:
    """Returns the batch that was timed, or why none was."""
    timed = _timed(evidence, case)
    if timed is not None:
        return f"{timed.batch_size:,}"
    size = evidence.value(case, FIT["largest_batch_size"])
    if size is None:
        return evidence.failure(case, FIT) or MISSING
    failures = [evidence.failure(c, TIME) for c in _tried(evidence, case)]
    return "none fits" if size.median < 1 else next((f for f in failures if f), MISSING)


def _timed(evidence: Evidence, case: Case) -> Case | None:
    """Returns the case that was timed for this limit: the largest batch that did not run out of memory."""
    ran = [c for c in _tried(evidence, case) if evidence.value(c, _STEP)]
    return max(ran, key=lambda c: c.batch_size, default=None)


def _tried(evidence: Evidence, case: Case) -> list[Case]:
    return [c for c in evidence.cases(TIME) if c.replace(batch_size=case.batch_size) == case]


def _speed_ratio(evidence: Evidence, case: Case, base: Case) -> Ratio | None:
    """Returns how many times as many images a second a case comes to as another; each was timed in a process of its own."""
    ours, theirs = _timed(evidence, case), _timed(evidence, base)
    found = evidence.time_ratio(theirs, ours) if ours is not None and theirs is not None else None
    return found.scaled(ours.batch_size / theirs.batch_size) if found and ours and theirs else None


def _images_per_second(evidence: Evidence, case: Case) -> float | None:
    timed = _timed(evidence, case)
    step = evidence.value(timed, _STEP) if timed is not None else None
    return timed.batch_size / step.median if timed is not None and step and step.median else None
