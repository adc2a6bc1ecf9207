"""What changed against a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.compare import CANT_TELL, Comparison, Finding, change_of
from revbench.report.document import MISSING, Block, Paragraph, Section, Table

_FIRST_NUMBER = 3


def section(found: Comparison) -> Section:
    """Returns the gate's verdict, what changed, and what stayed the same."""
    verdict = found.verdict()
    blocks: list[Block] = [Paragraph(f"{verdict[0].upper()}{verdict[1:]}.")]
    if found.unlike:
        differing = "; ".join(f"{name}: {before} and {now}" for name, (before, now) in found.unlike.items())
        blocks.append(Paragraph(f"Unlike machines: {differing}."))
    for what, names in (("Only the baseline has", found.missing), ("Only this run has", found.new)):
        if names:
            more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
            blocks.append(Paragraph(f"{what} {', '.join(names[:5])}{more}."))
    changed = [one for one in found.findings if one.outcome in ("worse", "better")]
    untold = [one for one in found.findings if one.outcome == CANT_TELL]
    same = [one for one in found.findings if one.outcome == "same"]
    for title, findings in (
        ("What changed", changed), ("What stayed the same", same), ("What can't be told", untold),
    ):  # fmt: skip
        if findings:
            blocks.append(_table(f"{title} against {found.baseline}", findings))
    return Section("Against the baseline", blocks)


def _table(title: str, findings: Sequence[Finding]) -> Table:
    rows = []
    for one in findings:
        before, now = (one.shown(value) if value is not None else MISSING for value in (one.before, one.now))
        outcome = one.outcome if one.gated else f"{one.outcome}, not gated"
        rows.append([outcome, one.title, one.metric_with_remarks, before, now, change_of(one)])
    columns = ("", "Case", "Metric", "Before", "Now", "Change")
    note = "Change: this run's over the baseline's; of a time with an interval of 95 % over launches."
    return Table(title, columns, rows, _FIRST_NUMBER, (note,))
