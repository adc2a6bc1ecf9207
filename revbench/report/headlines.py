"""What somebody must know who reads ten seconds: of each network what reconstruction saves, costs, and does to the gradient."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from revbench.case import Case
from revbench.case.labels import network_name, strategy_of
from revbench.compare.ratios import Ratio
from revbench.numerics.statistics import INTERVAL_DRAWS
from revbench.prediction.declared import FIT
from revbench.probes import Metric
from revbench.probes.declared import DRIFT, MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.drift_cases import verdict_of
from revbench.report.evidence import Evidence
from revbench.report.table import tokens
from revbench.units import human_bytes, human_degrees, human_rate, without_same_unit

WIDTH = 80  # of a terminal
_OF_THE_HOST = " *"
_HEADS = ("", "peak memory", "step", "items a second", "gradient off")


class Beside(NamedTuple):
    """A number under stored, and under the strategy that stands beside it."""

    stored: float
    ours: float

    @property
    def ratio(self) -> float | None:
        """Returns what the second is of the first."""
        return self.ours / self.stored if self.stored else None


@dataclass(frozen=True)
class Headline:
    """One network, reconstructed beside stored.

    Attributes:
        case: the reconstructed one.
        peak_bytes: of a step.
        activation_peak_bytes: of that what lies above the steady state.
        allocated_peak_bytes: on a GPU the most that PyTorch's allocator gave out.
        step_seconds: medians.
        ratio: of the times of a step.
        launch_bound: whether of one of them the host is what was timed.
        largest_batch: that is predicted to fit into `limit_bytes`.
        limit_bytes: the largest limit that was asked for; None if none was.
        angle_degrees: of the gradient against float64, medians over draws.
        draws: how many there were of the gradient.
        verdict: on the gradient, one word; None if it was not measured.
    """

    case: Case
    peak_bytes: Beside | None = None
    activation_peak_bytes: Beside | None = None
    allocated_peak_bytes: Beside | None = None
    step_seconds: Beside | None = None
    ratio: Ratio | None = None
    launch_bound: bool = False
    largest_batch: Beside | None = None
    limit_bytes: int | None = None
    angle_degrees: Beside | None = None
    draws: int = 0
    verdict: str | None = None

    @property
    def items_per_second(self) -> Beside | None:
        """Images or tokens of a step, over its time."""
        if self.step_seconds is None or not all(self.step_seconds):
            return None
        return Beside(*(self.case.items / seconds for seconds in self.step_seconds))

    @property
    def has_few_draws(self) -> bool:
        """Whether there are fewer draws of the gradient than bear a headline."""
        return self.draws < INTERVAL_DRAWS

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """What the terminal's table has of it."""
        peak = items = angle = "–"
        if self.peak_bytes is not None:
            before, now = (human_bytes(value) for value in self.peak_bytes)
            peak = f"{without_same_unit(before, now)} → {now}"
        if self.items_per_second is not None:
            items = " → ".join(human_rate(value) for value in self.items_per_second) + tokens(self.case)
        if self.angle_degrees is not None:
            off, now = (human_degrees(value) for value in self.angle_degrees)
            angle = "too few draws" if self.has_few_draws else f"{off.removesuffix('°')} → {now}"
        return network_name(self.case), peak, self._step, items, angle

    @property
    def _step(self) -> str:
        if self.ratio is None:
            return "–"
        if self.ratio.unstable:
            return "unstable"
        return f"{str(self.ratio).replace(' to ', '–')}{_OF_THE_HOST if self.launch_bound else ''}"


def headlines(evidence: Evidence) -> list[Headline]:
    """Returns one of each network that was measured reconstructed, with whatever there is of it."""
    return [
        _headline(evidence, case)
        for case in evidence.cases(MEMORY, TIME)
        if strategy_of(case) == "reconstructed" and not has_its_own_table(evidence, case)
    ]


def _headline(evidence: Evidence, case: Case) -> Headline:
    twin = case.stored()

    def beside(metric: Metric) -> Beside | None:
        stored, ours = evidence.value(twin, metric), evidence.value(case, metric)
        return Beside(stored.median, ours.median) if stored and ours else None

    angles = evidence.samples(case, DRIFT["angle_degrees"])
    stored = evidence.samples(case, DRIFT["stored_angle_degrees"]) or evidence.samples(twin, DRIFT["angle_degrees"])
    verdict = verdict_of(evidence, case)
    limit, largest = _largest_batches(evidence, case)
    return Headline(
        case, beside(MEMORY["peak_bytes"]), beside(MEMORY["activation_peak_bytes"]),
        beside(MEMORY["allocated_peak_bytes"]) if case.on_gpu else None, beside(TIME["step_seconds"]),
        evidence.time_ratio(case, twin), evidence.is_launch_bound(case) or evidence.is_launch_bound(twin), largest, limit,
        Beside(statistics.median(stored), statistics.median(angles)) if angles and stored else None, len(angles),
        verdict.partition(":")[0] if verdict is not None else None,
    )  # fmt: skip


def _largest_batches(evidence: Evidence, case: Case) -> tuple[int | None, Beside | None]:
    """Returns the largest limit for which both were predicted, and the batches that fit."""

    def fits(one: Case) -> dict[int, float]:
        limited = (c for c in evidence.cases(FIT) if c.memory_limit_bytes and _anyhow(c) == _anyhow(one))
        found = ((c.memory_limit_bytes, evidence.value(c, FIT["largest_batch_size"])) for c in limited)
        return {limit: size.median for limit, size in found if size is not None}

    theirs, ours = fits(case.stored()), fits(case)
    limit = max(theirs.keys() & ours.keys(), default=None)
    return limit, None if limit is None else Beside(theirs[limit], ours[limit])


def _anyhow(case: Case) -> Case:
    """Returns a case as if nothing limited its memory and its batch were another."""
    return case.replace(batch_size=1, memory_limit_bytes=0)


def lines_of(found: Sequence[Headline]) -> list[str]:
    """Returns a table of at most `WIDTH` letters a line: a network whose line would be longer takes several."""
    if not found:
        return []
    rows = [_HEADS, *(one.cells for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS))]
    lines = []
    if sum(widths) + 2 * (len(widths) - 1) <= WIDTH:
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    else:
        for one in found:
            lines.append(one.cells[0][:WIDTH])
            lines += [f"  {head:<18} {cell}" for head, cell in zip(_HEADS[1:], one.cells[1:], strict=True)]
    if any(one.cells[2].endswith(_OF_THE_HOST) for one in found):
        lines.append("* launch-bound: the host is what is timed, not the GPU")
    return lines


def largest_of(found: Sequence[Headline]) -> Case | None:
    """Returns the case whose step needs most memory under stored, of those whose memory and time are known and stable."""
    told = {one.case: one.peak_bytes.stored for one in found if one.peak_bytes and one.ratio and not one.ratio.unstable}
    return max(told, key=told.__getitem__, default=None)
