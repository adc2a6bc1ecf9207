"""Run folders of drift for tests that measure nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.results.schema import Row
from tests.results.rows import ENVIRONMENT, make_row, write_run

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=16)


def many(values: list[float]) -> list[float]:
    """Twelve draws in place of four, no two of them alike."""
    return [value * (1 + 0.001 * i) for i in range(3) for value in values]


NORMAL: dict[str, list[float]] = {
    "activation_error_epsilons": many([7.1, 7.3, 7.0, 7.4]),
    "activation_error": many([8.1e-7, 8.3e-7, 8.0e-7, 8.4e-7]),
    "smooth_amplification": many([1.02, 1.05, 1.03, 1.01]),
    "smooth_error_epsilons": many([20.0, 21.0, 19.5, 20.5]),
    "angle_degrees": many([0.1, 0.3, 0.2, 1e-4]),
    "flips": many([2.0, 4.0, 3.0, 0.0]),
}
BLOCKS = {"trunk.0": 8e-7, "trunk.1": 3e-7, "trunk.2": 7e-8}


def write(
    folder: Path,
    *rows: Row,
    environment: dict[str, Any] = ENVIRONMENT,
    blocks: dict[str, float] | None = None,
    smooth: dict[str, float] | None = None,
) -> Path:
    errors = blocks or BLOCKS
    columns: dict[str, list[Any]] = {
        "level": ["block"] * len(errors), "name": list(errors), "activation_error": list(errors.values()),
        "activation_error_low": [0.9 * e for e in errors.values()],
        "activation_error_high": [1.1 * e for e in errors.values()],
        "activation_log_mean": [math.log(e) for e in errors.values()],
        "activation_log_deviation": [0.05 for _ in errors],
        "smooth_relative_error": [(smooth or {}).get(name, 2e-6) for name in errors],
    }  # fmt: skip
    given = [(row, columns) if row.ok and row.probe == "drift" else row for row in rows]
    return write_run(folder, *given, environment=environment)


def drift_row(case: Case = CASE, *, metrics: dict[str, Any] | None = None, **samples: list[float]) -> Row:
    return make_row(case=case, probe="drift", metrics=metrics or {}, samples={**NORMAL, **samples})


def scaled(name: str, factor: float) -> dict[str, list[float]]:
    return {name: [value * factor for value in NORMAL[name]]}
