"""What a comparison found, for a person and for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One metric of one case.

    Attributes:
        case_id: of the case, as this run has it.
        title: the case in words.
        metric: a metric, or ``trace``, or ``status``.
        outcome: ``worse`` (the gate fails), ``holds``, ``unclear`` (too few draws to tell), ``shown`` (not gated).
        before, now: medians over draws; None where there is none.
        factor: ``now / before``.
        noise_factor: the factor that would be found in 90 of 100 cases; None if not gated, or none would.
        block: where it grew most, with its factor in words.
        words: what else there is to say.
    """

    case_id: str
    title: str
    metric: str
    outcome: str
    before: float | None = None
    now: float | None = None
    factor: float | None = None
    noise_factor: float | None = None
    block: str | None = None
    words: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.outcome.upper():<7} {self.title}: {self.metric}"]
        if self.before is not None and self.now is not None:
            parts.append(f"{_short(self.before)} → {_short(self.now)}")
        if self.factor is not None:
            noise = f"; found from {self.noise_factor:.3g} × on" if self.noise_factor is not None else ""
            parts.append(f"({self.factor:.2f} ×{noise})")
        return " ".join(parts) + "".join(f", {part}" for part in (self.block, self.words) if part)


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        baseline: the folder's name.
        same_hardware: whether all cases were measured on like hardware; of those that were not, only the metrics that are
            the same on every machine are gated.
        findings: the gated ones first, the worst first.
        unmatched: ids of the baseline's cases that this run has not measured.
    """

    baseline: str
    same_hardware: bool
    findings: Sequence[Finding]
    unmatched: Sequence[str]

    @property
    def failed(self) -> bool:
        """Whether something got worse, or nothing could be told: a gate that sees nothing passes nothing."""
        return any(finding.outcome == "worse" for finding in self.findings) or self.blind

    @property
    def blind(self) -> bool:
        """Whether no metric could be told."""
        return all(finding.outcome in ("shown", "unclear") for finding in self.findings)

    def lines(self) -> list[str]:
        """Returns what a person should read, the verdict last."""
        gated = [finding for finding in self.findings if finding.outcome != "shown"]
        cases = len({finding.case_id for finding in gated})
        worse = sum(finding.outcome == "worse" for finding in gated)
        unclear = sum(finding.outcome == "unclear" for finding in gated)
        hardware = (
            "like hardware" if self.same_hardware else "unlike hardware, so only what is the same on every machine"
        )
        last = f"gate against {self.baseline} ({hardware}): {len(gated)} metrics of {cases} cases, {worse} worse"
        if unclear:
            last += f", {unclear} unclear (too few draws, or too much scatter)"
        if self.blind:
            last += "; nothing could be told, so nothing passes: measure more draws (--revbench-repeats)"
        if self.unmatched:
            last += f"; {len(self.unmatched)} of the baseline's cases were not measured"
        return [*map(str, self.findings), last]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return {**asdict(self), "failed": self.failed, "blind": self.blind}


def _short(value: float) -> str:
    return f"{value:.3g}"
