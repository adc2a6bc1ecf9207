"""``benchmark.json``: the rows of step times in pytest-benchmark's own format, for the tools that read it."""

from __future__ import annotations

import json
from typing import Any

from revbench.probes.declared import TIME
from revbench.results.files import write_atomically
from revbench.results.runs import Run
from revbench.results.schema import Row

_STEP = TIME["step_seconds"]

STATS_FIELDS = (
    "min", "max", "mean", "stddev", "rounds", "median", "iqr", "q1", "q3", "iqr_outliers", "stddev_outliers", "outliers",
    "ld15iqr", "hd15iqr", "ops", "total",
)  # fmt: skip


def benchmark_name(case_id: str, repeat: int) -> str:
    """Returns the name of one launch of a case: the same from a checkout, a wheel and a foreign folder."""
    return case_id if repeat == 1 else f"{case_id} (launch {repeat})"


def write_benchmark_json(run: Run) -> None:
    """Write ``benchmark.json`` into the run's folder, with every sample of every row of the probe ``time``."""
    import pytest_benchmark

    rows = [row for row in run.rows if row.probe == TIME.name and row.ok and row.samples.get(_STEP.name)]
    environments = list(run.environments.values())
    document = {
        "machine_info": environments[-1] if environments else {},
        "commit_info": {},
        "benchmarks": [_benchmark(row) for row in rows],
        "datetime": rows[0].started if rows else None,
        "version": pytest_benchmark.__version__,
    }
    write_atomically(run.folder / "benchmark.json", json.dumps(document, indent=1, allow_nan=False))


def _benchmark(row: Row) -> dict[str, Any]:
    from pytest_benchmark.stats import Stats

    stats = Stats()
    for sample in row.samples[_STEP.name]:
        stats.update(sample)
    name = benchmark_name(row.case.id, row.repeat)
    return {
        "group": row.case.model,
        "name": name,
        "fullname": f"{row.probe}::{name}",
        "params": row.case.to_json(),
        "param": row.case.id,
        "extra_info": {**row.metrics, "environment_id": row.environment_id, "repeat": row.repeat},
        "options": dict(row.options),
        "stats": {field: getattr(stats, field) for field in STATS_FIELDS}
        | {"data": list(row.samples[_STEP.name]), "iterations": 1},
    }
