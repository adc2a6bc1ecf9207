"""A comparison as Markdown: for a pull request or the summary of a CI job."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from revbench.compare.findings import CANT_TELL, Comparison, Finding
from revbench.terminal import markdown

MOST = 5  # of the worst and of the best; the rest is folded
MOST_FOLDED = 200
_UNUSUAL = re.compile(r"[^\w .,:;×()/+=-]")  # in a fenced block there is no escaping
_HALF = 20  # letters, of a picture to each side of no change
_LEAST_REACH = math.log(1.05)


def comparison_markdown(found: Comparison) -> str:
    """Returns the verdict in one line, what got worst and what got best, and the rest folded."""
    gated = found.gated
    worse = [finding for finding in gated if finding.outcome == "worse"]
    better = [finding for finding in found.findings if finding.outcome == "better"]
    sign = "❌" if found.failed else "✅"
    lines = [f"### {sign} {markdown(found.verdict())}", ""]
    if found.unlike:
        differing = "; ".join(f"{name}: {a} and {b}" for name, (a, b) in found.unlike.items())
        lines += [f"Unlike machines: {markdown(differing)}.", ""]
    for title, some in (("Worse", worse), ("Better", better)):
        if some:
            lines += [f"**{title}**", "", *_table(some[:MOST]), ""]
            if len(some) > MOST:
                lines += [f"and {len(some) - MOST} more below.", ""]
    drawn = [f for f in (*worse[:MOST], *better[:MOST]) if f.factor is not None and 0 < f.factor < math.inf]
    if drawn:
        lines += ["```text", *_drawn(drawn), "```", ""]
    for title, names in (("Missing: only the baseline has", found.missing), ("New: only this run has", found.new)):
        if names:
            shown = ", ".join(f"`{_code(name)}`" for name in names[:10])
            lines += [f"{title} {shown}{f' and {len(names) - 10} more' if len(names) > 10 else ''}.", ""]
    rest = [finding for finding in found.findings if finding not in worse[:MOST] and finding not in better[:MOST]]
    if rest:
        lines += ["<details>", f"<summary>All others ({len(rest):,})</summary>", "", *_table(rest[:MOST_FOLDED]), ""]
        if len(rest) > MOST_FOLDED:
            lines += [f"The first {MOST_FOLDED}; gate.json has all.", ""]
        lines += ["</details>", ""]
    return "\n".join(lines)


def _table(findings: Sequence[Finding]) -> list[str]:
    lines = ["| | Case | Metric | Before | Now | Change |", "| :-- | :-- | :-- | --: | --: | --: |"]
    for finding in findings:
        before, now = (finding.shown(value) if value is not None else "–" for value in (finding.before, finding.now))
        outcome = f"**{finding.outcome}**" if finding.gated and finding.outcome == "worse" else finding.outcome
        outcome = outcome if finding.gated or finding.outcome == CANT_TELL else f"{outcome} (not gated)"
        cells = (finding.title, finding.metric_with_remarks, before, now, change_of(finding))
        lines.append(f"| {outcome} | {' | '.join(map(markdown, cells))} |")
    return lines


def _drawn(findings: Sequence[Finding]) -> list[str]:
    """Returns a picture of changes with their intervals, in letters, so that it shows wherever it is pasted; by logarithms."""
    spans = [(f.low or f.factor or 1.0, f.factor or 1.0, f.high or f.factor or 1.0) for f in findings]
    reach = max(_LEAST_REACH, *(abs(math.log(value)) for span in spans for value in span if value > 0))
    names = [_UNUSUAL.sub("?", f"{finding.title}: {finding.metric}") for finding in findings]

    def column(value: float) -> int:
        return round((math.log(value) / reach + 1) * _HALF) if value > 0 else 0

    lines = []
    for name, (low, middle, high) in zip(names, spans, strict=True):
        marks = [" "] * (2 * _HALF + 1)
        marks[_HALF] = "│"
        for i in range(column(low), column(high) + 1):
            marks[i] = "─"
        marks[column(middle)] = "●"
        lines.append(f"{''.join(marks)}  {name}")
    left, right = f"{math.exp(-reach):.2f} ×", f"{math.exp(reach):.2f} ×"
    head = f"{left.ljust(_HALF)}1 ×{right.rjust(_HALF - 2)}"
    return [head, *lines]


def change_of(finding: Finding) -> str:
    """Returns the factor with its interval; a dash where there is none."""
    if finding.factor is None:
        return "–"
    if finding.low is None or finding.high is None:
        return f"{finding.factor:.3g} ×"
    return f"{finding.factor:.2f} × ({finding.low:.2f} to {finding.high:.2f})"


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").replace("|", "/").split())
