"""What only a threshold asks for: limits, and changes of metrics that have no rule of their own."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from revbench.case.labels import full_title
from revbench.compare.findings import Finding
from revbench.compare.matching import Match, Matching
from revbench.compare.ratios import launch_ratios
from revbench.compare.thresholds import TO_STORED, Threshold
from revbench.probes import Metric
from revbench.probes.declared import TIME
from revbench.results.schema import Row


def median_value(rows: Sequence[Row], metric: Metric) -> float | None:
    """Returns the median over launches."""
    found = [value for row in rows if row.ok and (value := row.number(metric.name)) is not None]
    return statistics.median(found) if found else None


def of_thresholds(
    matching: Matching, thresholds: Sequence[Threshold], findings: Sequence[Finding]
) -> Iterator[Finding]:
    """Tells which values pass a limit, and compares metrics that only a threshold asks for.

    Args:
        matching: what both runs have, and what is new.
        thresholds: of the gate.
        findings: what was told already, by rules of its own.
    """
    for one in thresholds:
        if one.limit is not None:
            yield from _of_limit(one, one.limit, [*matching.matches, *matching.new])
        elif one.change is not None:
            yield from _of_change(one, one.change, matching.matches, findings)


def _of_limit(one: Threshold, limit: float, measured: Sequence[Match]) -> Iterator[Finding]:
    """Tells for each case whether its value passes a limit, which needs no baseline."""
    metric, lower = one.metric, one.metric.better == "lower"
    timed = {match.case: match for match in measured if match.probe == TIME.name}
    for match in measured:
        if match.probe != metric.probe or not one.is_for(metric, match.case.id):
            continue
        if metric == TO_STORED:
            base = None if match.case == match.case.stored() else timed.get(match.case.stored())
            old, new = (None, None) if base is None else (
                _middle_ratio(match.before, base.before), _middle_ratio(match.now, base.now)
            )  # fmt: skip
        else:
            old, new = (median_value(rows, metric) for rows in (match.before, match.now))
        if new is not None:
            passed = new > limit if lower else new < limit
            yield Finding(
                match.case.id, full_title(match.case), match.probe, metric.name, "worse" if passed else "same", True, old, new,
                new / old if old else None, words=f"its limit is {one.text}",
            )  # fmt: skip


def _middle_ratio(rows: Sequence[Row], bases: Sequence[Row]) -> float | None:
    found = launch_ratios(rows, bases, TIME["step_seconds"].name)
    return statistics.geometric_mean(found) if found else None


def _of_change(
    one: Threshold, share: float, matches: Sequence[Match], findings: Sequence[Finding]
) -> Iterator[Finding]:
    """Compares medians of a metric that has no rule of its own."""
    lower = one.metric.better == "lower"
    for match in matches:
        if match.probe != one.metric.probe or not one.is_for(one.metric, match.case.id):
            continue
        old, new = (median_value(rows, one.metric) for rows in (match.before, match.now))
        if new is not None and old and not _told(findings, match, one.metric):
            grew = (new / old if lower else old / new) - 1 if new else 0.0
            outcome = "worse" if grew > share else "better" if grew < -share else "same"
            yield Finding(
                match.case.id, full_title(match.case), match.probe, one.metric.name, outcome, match.same_processor, old, new,
                new / old, words="medians, without a test" if outcome == "worse" else None,
            )  # fmt: skip


def _told(findings: Sequence[Finding], match: Match, metric: Metric) -> bool:
    """Tells whether a metric was compared already, by rules of its own."""
    key = (match.case.id, match.probe, metric.name)
    own_rules = match.probe == TIME.name
    return any((f.case_id, f.probe, f.metric) == key and (f.gated or own_rules) for f in findings)
