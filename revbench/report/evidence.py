"""The rows of one machine, or of some that are alike, asked by case and metric; the report computes from nothing else."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from revbench.case import Case
from revbench.compare.ratios import Ratio, time_ratio
from revbench.probes import Metric, Probe, Value
from revbench.probes.declared import TIME
from revbench.results.runs import Run
from revbench.results.schema import Row, standing, with_own_draws
from revbench.runner.environment import summarise

LEAST_DEPTHS = 3  # of a curve of growth


@dataclass(frozen=True)
class Statistic:
    """A metric over launches: their median, the smallest and the largest, and how many there were."""

    median: float
    low: float
    high: float
    launches: int


class Evidence:
    """What a run says of one machine, or of several that are alike.

    Args:
        run: as read from disk.
        environment_ids: of machines that are alike (`environments_alike`); rows of others are left out: unlike hardware is never
            mixed in one number.

    Attributes:
        environment: of the first of them.
        rows: that stand, in order of measurement.
        invocations: by what they were measured.
    """

    def __init__(self, run: Run, *environment_ids: str) -> None:
        self._run = run
        self.environment: Mapping[str, Any] = run.environments[environment_ids[0]]
        self.rows = standing([row for row in run.rows if row.environment_id in environment_ids])
        self.invocations = [one for one in run.invocations if one.environment_id in environment_ids]
        self._index: dict[tuple[Case, str], list[Row]] = {}
        for row in self.rows:
            self._index.setdefault((row.case, row.probe), []).append(row)

    @functools.cached_property
    def against_depth(self) -> AbstractSet[Case]:
        """The cases of networks that were measured at so many depths that growth can be fitted."""
        families: dict[Case, set[Case]] = {}
        for case in dict.fromkeys(row.case for row in self.rows):
            if case.depth is not None and not case.memory_limit_bytes:
                families.setdefault(case.replace(depth=None), set()).add(case)
        return {case for cases in families.values() if len(cases) >= LEAST_DEPTHS for case in cases}

    @property
    def machine(self) -> str:
        """What it was measured on, and with which PyTorch."""
        return summarise(self.environment, {row.case.device for row in self.rows})

    def cases(self, *probes: Probe) -> list[Case]:
        """Returns the cases that these probes measured (with whatever status), in order of measurement."""
        names = {probe.name for probe in probes}
        return list(dict.fromkeys(row.case for row in self.rows if row.probe in names))

    def launches(self, case: Case, probe: Probe) -> list[Row]:
        """Returns the rows that have metrics: of each launch the last, which another with other options may have superseded; of
        launches that drew the same, the first."""
        return self._with_metrics(case, probe.name)

    def value(self, case: Case, metric: Metric) -> Statistic | None:
        """Returns a metric over launches; None where no launch has it."""
        rows = self._with_metrics(case, metric.probe)
        found = [value for row in rows if (value := row.number(metric.name)) is not None]
        if not found:
            return None
        return Statistic(statistics.median(found), min(found), max(found), len(found))

    def word(self, case: Case, metric: Metric) -> str | None:
        """Returns a metric that is a word, of the first launch that has it."""
        return next(
            (str(word) for row in self._with_metrics(case, metric.probe) if (word := row.metrics.get(metric.name))),
            None,
        )

    def samples(self, case: Case, metric: Metric) -> list[float]:
        """Returns every sample of a metric, of all launches together; none if one launch has no finite value for it."""
        rows = self._with_metrics(case, metric.probe)
        if any(row.number(metric.name) is None for row in rows):
            return []
        return [float(value) for row in rows for value in row.samples.get(metric.name, ())]

    def ratio(self, case: Case, base: Case, metric: Metric) -> float | None:
        """Returns a metric of a case over that of another, medians over launches; None where one is missing or 0."""
        ours, theirs = self.value(case, metric), self.value(base, metric)
        return ours.median / theirs.median if ours and theirs and theirs.median else None

    def time_ratio(self, case: Case, base: Case) -> Ratio | None:
        """Returns how many times as long a step of a case takes as one of another; None where one is missing."""
        return time_ratio(self.launches(case, TIME), self.launches(base, TIME))

    def is_launch_bound(self, case: Case) -> bool:
        """Tells whether on a GPU the host is what was timed: a kernel ran in less than 80 % of the step."""
        found = self.value(case, TIME["launch_bound"])
        return found is not None and found.median > 0

    def failure(self, case: Case, probe: Probe) -> str | None:
        """Returns the status of a case none of whose launches has metrics; None if one has, or if there is no row."""
        rows = self._index.get((case, probe.name), [])
        return rows[0].status if rows and not any(row.ok for row in rows) else None

    def message(self, case: Case, probe: Probe) -> str | None:
        """Returns what the first row of such a case says."""
        rows = self._index.get((case, probe.name), [])
        return rows[0].message if rows else None

    def series(self, case: Case, probe: Probe) -> dict[str, list[Value]]:
        """Returns the series of the first launch that has one."""
        return next((columns for row in self.launches(case, probe) if (columns := self.series_of(row))), {})

    def _with_metrics(self, case: Case, probe: str) -> list[Row]:
        rows = self._index.get((case, probe), [])
        return with_own_draws({(row.environment_id, row.repeat): row for row in rows if row.ok}.values())

    def series_of(self, row: Row) -> dict[str, list[Value]]:
        """Returns the series of one row; empty if it has none."""
        return self._run.series(row)
