"""The rows of one environment, asked by case, probe and metric; the report computes from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.results.runs import Run
from revbench.results.schema import Metric, Row, standing


@dataclass(frozen=True)
class Statistic:
    """A figure over launches: their median, the smallest and the largest, and how many there were."""

    median: float
    low: float
    high: float
    launches: int


class Evidence:
    """What a run says of one environment.

    Args:
        run: as read from disk.
        environment_id: rows of other environments are left out: unlike hardware is never mixed in one figure.
    """

    def __init__(self, run: Run, environment_id: str) -> None:
        self._run = run
        self.environment: Mapping[str, Any] = run.environments[environment_id]
        self.rows = standing([row for row in run.rows if row.environment_id == environment_id])
        self._index: dict[tuple[Case, str], list[Row]] = {}
        for row in self.rows:
            self._index.setdefault((row.case, row.probe), []).append(row)

    def cases(self, *probes: str) -> list[Case]:
        """The cases that these probes measured (with whatever status), in order of measurement."""
        return list(dict.fromkeys(row.case for row in self.rows if row.probe in probes))

    def launches(self, case: Case, probe: str) -> list[Row]:
        """The rows that have figures: of each launch the last, which another with other options may have superseded."""
        return list({row.repeat: row for row in self._index.get((case, probe), []) if row.ok}.values())

    def value(self, case: Case, probe: str, metric: str) -> Statistic | None:
        """A metric over launches; None where no launch has it."""
        found = [value for row in self.launches(case, probe) if (value := row.number(metric)) is not None]
        if not found:
            return None
        return Statistic(statistics.median(found), min(found), max(found), len(found))

    def samples(self, case: Case, probe: str, metric: str) -> list[float]:
        """Every sample of a metric, of all launches together; none if one launch has no finite figure for it."""
        if any(row.number(metric) is None for row in self.launches(case, probe)):
            return []
        return [float(value) for row in self.launches(case, probe) for value in row.samples.get(metric, ())]

    def ratio(self, case: Case, base: Case, probe: str, metric: str) -> float | None:
        """A metric of a case over that of another, medians over launches; None where one is missing or 0."""
        ours, theirs = self.value(case, probe, metric), self.value(base, probe, metric)
        return ours.median / theirs.median if ours and theirs and theirs.median else None

    def failure(self, case: Case, probe: str) -> str | None:
        """The status of a case none of whose launches has figures; None if one has, or if there is no row."""
        rows = self._index.get((case, probe), [])
        return rows[0].status if rows and not any(row.ok for row in rows) else None

    def message(self, case: Case, probe: str) -> str | None:
        """What the first row of such a case says."""
        rows = self._index.get((case, probe), [])
        return rows[0].message if rows else None

    def series(self, case: Case, probe: str) -> dict[str, list[Metric]]:
        """The series of the first launch that has one."""
        return next((columns for row in self.launches(case, probe) if (columns := self.series_of(row))), {})

    def series_of(self, row: Row) -> dict[str, list[Metric]]:
        """The series of one row; empty if it has none."""
        return self._run.series(row)


def paired(cases: Iterable[Case]) -> list[list[Case]]:
    """Cases in groups: those that differ in strategy only, a ResNet together with the RevNet it is paired with."""
    groups: dict[Case, list[Case]] = {}
    for case in cases:
        twin = case.stored()
        known = CATALOGUE.get(case.model)
        if known is not None and known.family == "revnet":
            twin = twin.replace(model=known.pair)
        groups.setdefault(twin, []).append(case)
    return list(groups.values())
