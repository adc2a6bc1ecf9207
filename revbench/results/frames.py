"""Runs as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from revbench.results.journal import read_run

if TYPE_CHECKING:
    import pandas as pd


def load_runs(paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Rows of any number of runs in one frame.

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

    records = []
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        run = read_run(Path(path))
        records += [
            {
                "run": run.folder.resolve().name, "case_id": row.case.id, "probe": row.probe, "repeat": row.repeat,
                "status": row.status, "environment_id": row.environment_id, "started": row.started,
                "elapsed_seconds": row.elapsed_seconds, "message": row.message, **row.case.to_json(), **row.metrics,
            }
            for row in run.rows
        ]  # fmt: skip
    frame: pd.DataFrame = pd.DataFrame(records)
    return frame
