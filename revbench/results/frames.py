"""Runs as pandas frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revbench.case import Case
from revbench.results.runs import read_run

if TYPE_CHECKING:
    import pandas as pd

_OF_A_ROW = ("probe", "repeat", "status", "environment_id", "started", "elapsed_seconds", "message")

# What a metric can't be called.
OWN_COLUMNS = frozenset(["run", "case_id", *_OF_A_ROW, *(field.name for field in dataclasses.fields(Case))])


def load_runs(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Returns the rows of any number of runs in one frame.

    Args:
        paths: run folders (or their ``rows.jsonl``), one or many.

    Returns:
        One line a row: ``run`` (the folder's name), ``case_id``, ``probe``, ``repeat``, ``status``,
        ``environment_id``, ``started``, ``elapsed_seconds``, ``message``, each field of the case under its name
        and each metric under its own.

    Raises:
        UserError: a path that is no run, or a line in it that is no record.
    """
    import pandas as pd

    runs = [read_run(Path(path)) for path in ([paths] if isinstance(paths, (str, Path)) else paths)]
    rows = [row for run in runs for row in run.rows]
    ids = {number: case.id for number, case in {id(row.case): row.case for row in rows}.items()}  # many are of one case
    columns: dict[str, list[Any]] = {
        "run": [run.folder.resolve().name for run in runs for _ in run.rows],
        "case_id": [ids[id(row.case)] for row in rows],
        **{name: [getattr(row, name) for row in rows] for name in _OF_A_ROW},
        **{field.name: [getattr(row.case, field.name) for row in rows] for field in dataclasses.fields(Case)},
    }
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    columns |= {name: [row.metrics.get(name) for row in rows] for name in metrics}
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame
