"""Rows for tests that measure nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.results.journal import Journal
from revbench.results.schema import Row

ENVIRONMENT: dict[str, Any] = {
    "environment_id": "0123456789ab",
    "cpu": {"model": "A <b>CPU</b>", "logical_cores": 4, "usable_cores": 2, "capability": "AVX2"},
    "memory_bytes": 2**34,
    "accelerators": [],
    "system": "Linux x86_64",
    "python": "3.11",
    "packages": {"revbench": "0.1", "torch": "2.6", "torchvision": None, "numpy": "2.0", "nvidia-ml-py": None},
    "torch": {"threads": 2, "cuda": None, "cudnn": None, "mkldnn": True},
}

ACCELERATOR: dict[str, Any] = {
    "name": "A GPU", "uuid": "GPU-1", "memory_bytes": 2**33, "capability": "9.0", "multiprocessors": 132, "driver": "1",
}  # fmt: skip


def make_row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "case": Case(model="revnet-38", strategy="reconstructed", batch_size=16), "probe": "time", "repeat": 1,
        "status": "ok", "environment_id": ENVIRONMENT["environment_id"], "started": "2026-01-02T03:04:05+00:00",
        "elapsed_seconds": 1.5, "options": {"max_seconds": 1.0},
        "metrics": {
            "step_seconds": 0.5, "forward_seconds": 0.2, "backward_seconds": 0.2, "optimizer_seconds": 0.1, "rounds": 3
        },
        "samples": {"step_seconds": [0.5, 0.25, 1.0]},
    }  # fmt: skip
    return Row(**{**fields, **changes})


Columns = Mapping[str, Sequence[Any]]


def write_run(folder: Path, *rows: Row | tuple[Row, Columns], environment: Mapping[str, Any] = ENVIRONMENT) -> Path:
    """A run folder with these rows, each alone or with the columns of its series."""
    journal = Journal(folder)
    journal.add_environment(dict(environment))
    written = []
    for given in rows:
        row, columns = given if isinstance(given, tuple) else (given, None)
        if columns is not None:
            row = dataclasses.replace(row, series=journal.add_series(row.key, columns))
        written.append(row)
    journal.add_rows(written)
    journal.close()
    return folder
