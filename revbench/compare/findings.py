"""What a comparison found, for a person and for a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from revbench.compare.thresholds import TO_STORED
from revbench.probes import Metric
from revbench.runner.registry import registry

CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Finding:
    """One metric of one case.

    Attributes:
        case_id: of the case, as this run has it.
        title: the case in words.
        probe: that measured it.
        metric: a metric, or ``trace``, or ``status``.
        outcome: ``worse``, ``better``, ``same`` or ``can't tell``.
        gated: whether the gate looks at it.
        before, now: medians over draws or launches; None where there is none.
        factor: ``now / before``.
        low, high: interval of 95 % of the factor of a time.
        noise_factor: of drift, the factor that would be found in 90 of 100 cases; None if not gated, or none would.
        block: where it grew most, with its factor in words.
        words: what else there is to say.
    """

    case_id: str
    title: str
    probe: str
    metric: str
    outcome: str
    gated: bool
    before: float | None = None
    now: float | None = None
    factor: float | None = None
    noise_factor: float | None = None
    block: str | None = None
    words: str | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        outcome = self.outcome.upper() if self.gated else self.outcome
        parts = [f"{outcome:<10} {self.title}: {self.metric}"]
        if self.before is not None and self.now is not None:
            parts.append(f"{self.shown(self.before)} → {self.shown(self.now)}")
        if self.factor is not None:
            noise = f"; found from {self.noise_factor:.3g} × on" if self.noise_factor is not None else ""
            between = f", {self.low:.2f} to {self.high:.2f}" if self.low is not None and self.high is not None else ""
            parts.append(f"({self.factor:.2f} ×{between}{noise})")
        return ", ".join(filter(None, (" ".join(parts), self.remarks)))

    @property
    def remarks(self) -> str:
        """What there is to say beside the values."""
        return ", ".join(filter(None, (self.block, self.words)))

    @property
    def metric_with_remarks(self) -> str:
        """The metric, as a cell of a table names it."""
        return f"{self.metric} ({self.remarks})" if self.remarks else self.metric

    def shown(self, value: float) -> str:
        """Returns a value as a person reads it."""
        if self.metric == TO_STORED.name:
            return f"{value:.2f} ×"
        found = registry().probes.get(self.probe)
        metric: Metric | None = next((m for m in found.metrics if m.name == self.metric), None) if found else None
        return (metric.show(value) if metric is not None else None) or f"{value:.3g}"


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        baseline, run: the folders' names.
        same_hardware: whether all cases were measured on like processors; of those that were not, only the metrics that are the
            same on every machine are gated.
        unlike: what the machines differ in, with both values.
        findings: the gated ones first, the worst first.
        missing: what only the baseline measured: probe and case.
        new: what only this run measured.
    """

    baseline: str
    run: str
    same_hardware: bool
    unlike: Mapping[str, tuple[str, str]]
    findings: Sequence[Finding]
    missing: Sequence[str]
    new: Sequence[str]

    @property
    def gated(self) -> list[Finding]:
        """The findings that the gate looks at."""
        return [finding for finding in self.findings if finding.gated]

    @property
    def failed(self) -> bool:
        """Whether something got worse, or nothing could be told: a gate that sees nothing passes nothing."""
        return any(finding.outcome == "worse" for finding in self.gated) or self.blind

    @property
    def blind(self) -> bool:
        """Whether no metric could be told."""
        return all(finding.outcome == CANT_TELL for finding in self.gated)

    def why_blind(self) -> str:
        """Says what a gate that could tell nothing lacks, and how that is measured."""
        if not self.gated:
            reasons = Counter(finding.words for finding in self.findings if finding.words)
            why = f" ({reasons.most_common(1)[0][0]})" if reasons else ""
            return (
                f"nothing that is gated was measured in both {self.baseline} and {self.run}{why}; measure memory, flops or"
                " drift of the same cases on like hardware, or gate what there is with --fail-on"
            )
        return (
            f"nothing could be told, so nothing passes: {self.gated[0].words}; measure more draws or launches"
            " (--revbench-repeats)"
        )

    def verdict(self) -> str:
        """Returns the gate's line."""
        gated = self.gated
        cases = len({finding.case_id for finding in gated})
        counts = Counter(finding.outcome for finding in gated)
        hardware = (
            "like hardware" if self.same_hardware else "unlike hardware, so only what is the same on every machine"
        )
        said = (
            f"gate against {self.baseline} ({hardware}): {len(gated)} metrics of {cases} cases, {counts['worse']} worse"
        )
        if counts["better"]:
            said += f", {counts['better']} better"
        if counts[CANT_TELL]:
            said += f", {counts[CANT_TELL]} can't be told (too few draws or launches, or too much scatter)"
        if self.blind:
            said += f"; {self.why_blind()}"
        if self.missing:
            said += f"; {len(self.missing)} of the baseline's measurements are missing"
        return said

    def lines(self) -> list[str]:
        """Returns what a person should read in the terminal, the verdict last: what is not as it was, and what can't be told."""
        listed = [finding for finding in self.findings if finding.gated and finding.outcome != "same"]
        named = "; ".join(f"{name} {a} and {b}" for name, (a, b) in self.unlike.items())
        return [*([f"unlike machines: {named}"] if named else []), *map(str, listed), self.verdict()]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return {**asdict(self), "failed": self.failed, "blind": self.blind}
