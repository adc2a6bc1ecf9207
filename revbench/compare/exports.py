"""A run's metrics in the formats of tools that keep their history: github-action-benchmark and Bencher."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from revbench.errors import unknown
from revbench.probes import Metric
from revbench.results.machines import environments_alike, names_of_environments
from revbench.results.runs import Run
from revbench.results.schema import Row, standing
from revbench.runner.registry import registry

FORMATS = ("customSmallerIsBetter", "customBiggerIsBetter", "bmf")
_LONGEST_MEASURE = 64  # letters, of Bencher's
_LONGEST_BENCHMARK = 1024


@dataclass(frozen=True)
class Value:
    """One metric of one case, over launches."""

    probe: str
    case_id: str
    metric: Metric
    median: float
    low: float
    high: float
    launches: int


def exported(run: Run, form: str) -> Any:
    """Returns a run as plain values in a format of another tool.

    Args:
        run: whose numbers are taken; medians over launches.
        form: ``customSmallerIsBetter`` or ``customBiggerIsBetter``, what github-action-benchmark reads
            (github.com/benchmark-action/github-action-benchmark): the metrics that have this direction; or ``bmf``, Bencher's
            metric format (bencher.dev/docs/reference/bencher-metric-format): all that are numbers.

    Raises:
        UserError: another format.
    """
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    values = list(_values(run))
    if form == "bmf":
        found: dict[str, dict[str, dict[str, float]]] = {}
        for value in values:
            benchmark = found.setdefault(f"{value.probe}: {value.case_id}"[:_LONGEST_BENCHMARK], {})
            measure: dict[str, float] = {"value": value.median}
            if value.launches > 1:
                measure |= {"lower_value": value.low, "upper_value": value.high}
            benchmark[value.metric.name[:_LONGEST_MEASURE]] = measure
        return found
    better = "lower" if form == "customSmallerIsBetter" else "higher"
    return [_custom(value) for value in values if value.metric.better == better]


def _custom(value: Value) -> Mapping[str, Any]:
    """Returns an entry of github-action-benchmark's."""
    found: dict[str, Any] = {
        "name": f"{value.case_id}: {value.probe} {value.metric.name}", "unit": value.metric.unit.name or "count",
        "value": value.median,
    }  # fmt: skip
    if value.launches > 1:
        found["range"] = f"± {(value.high - value.low) / 2:.3g}"
        found["extra"] = f"median of {value.launches} launches, {value.low:.6g} to {value.high:.6g}"
    return found


def _values(run: Run) -> Iterator[Value]:
    """Yields each metric of each case; of unlike machines never together, under the name of each."""
    machines = environments_alike(run)
    names = names_of_environments(run, machines) if len(machines) > 1 else [""]
    of = {key: name for keys, name in zip(machines, names, strict=True) for key in keys}
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in standing(run.rows):
        if row.ok:
            where = f"{of[row.environment_id]}: " if of[row.environment_id] else ""
            groups.setdefault((row.probe, where + row.case.id), []).append(row)
    for (name, case_id), rows in groups.items():
        probe = registry().probes.get(name)
        metrics: Sequence[Metric] = probe.metrics if probe is not None else ()
        for metric in metrics:
            found = [value for row in rows if (value := row.number(metric.name)) is not None]
            if found:
                yield Value(name, case_id, metric, statistics.median(found), min(found), max(found), len(found))
