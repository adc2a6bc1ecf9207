"""Other measurements: a table for each probe that another package brought."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.probes import Metric, Probe
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, words
from revbench.runner.registry import OURS, registry
from revbench.units import RATIO, WORDS


def section(evidence: Evidence) -> Section | None:
    """Returns a table for each of them; also of a probe that is not installed here, with the names that its rows have."""
    names = dict.fromkeys(row.probe for row in evidence.rows if row.probe not in OURS)
    return Section.of("Other measurements", [_table(evidence, name) for name in names])


def _table(evidence: Evidence, name: str) -> Table | None:
    known = registry().probes.get(name)
    probe = known if known is not None else _as_rows_have_it(evidence, name)
    cases = evidence.cases(probe)

    def cell(metric: Metric, case: Case) -> str:
        if failure := evidence.failure(case, probe):
            return failure
        if metric.unit is WORDS:
            return evidence.word(case, metric) or MISSING
        found = evidence.value(case, metric)
        return MISSING if found is None else metric.unit.show(found.median)

    there = [m for m in probe.metrics if any(evidence.value(c, m) or evidence.word(c, m) for c in cases)]
    columns = [
        words("Network", lambda case: network_name(case)),
        words("Strategy", strategy_of),
        words("Case", circumstances),
        *(Column(metric.title, partial(cell, metric)) for metric in there),
    ]
    package = registry().packages.get(name)
    notes = [
        f"The probe {name} of the package {package}: {probe.sentence}. Medians over launches."
        if package is not None
        else f"The probe {name} is not installed here, or can't be used, so its metrics are shown as its rows have them."
    ]
    return lay_out(name.replace("_", " ").capitalize(), columns, [cases], notes)


def _as_rows_have_it(evidence: Evidence, name: str) -> Probe:
    """Returns a declaration made of what the rows of a probe hold."""
    values = {key: value for row in evidence.rows if row.probe == name for key, value in row.metrics.items()}
    metrics: Sequence[Metric] = [
        Metric(key, WORDS if isinstance(value, str) else RATIO)
        for key, value in values.items()
        if not key.endswith("_reason")
    ]
    return Probe(name=name, function="", sentence="", metrics=metrics)
