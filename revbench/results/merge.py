"""Several run folders joined to one: what a sweep over many machines leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from revbench.errors import UserError
from revbench.results.files import is_there, own_folder, read_bytes, write_atomically
from revbench.results.journal import Journal
from revbench.results.runs import MOST_SERIES_BYTES, ROWS, SERIES, Run, read_run
from revbench.results.schema import Key


def merge_runs(folders: Sequence[Path], output: Path) -> Run:
    """Join runs; each row keeps its environment, and its series under a name of its own.

    Args:
        folders: run folders, two or more.
        output: a new folder.

    Returns:
        The joined run.

    Raises:
        UserError: a folder that is no run or of another schema version, fewer than two, the same measurement of the same
            machine in two of them, or an output that holds a run or can't be written. Nothing is left behind then.
    """
    if len(folders) < 2:
        raise UserError("give two or more run folders to merge")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run folder is given twice; name each once")
    runs = [read_run(folder) for folder in folders]
    seen: dict[tuple[str, Key], Path] = {}
    for run in runs:
        for row in run.rows:
            key = (row.environment_id, row.key)
            if key in seen and seen[key] != run.folder:  # one run may hold a training that died beside its end
                case, probe, repeat, _ = row.key
                raise UserError(
                    f"{seen[key]} and {run.folder} both hold {probe} of {case}, launch {repeat}, of one machine; omit one"
                )
            seen[key] = run.folder
            if row.environment_id not in run.environments:
                raise UserError(
                    f"{run.folder}: a row names an environment {row.environment_id!r} that it does not describe"
                )
    journal = Journal(output)
    copied: list[Path] = []
    rows = []
    try:
        for number, run in enumerate(runs, 1):
            for environment in run.environments.values():
                journal.add_environment(environment)
            for invocation in run.invocations:
                journal.add_invocation(invocation)
            for row in run.rows:
                series = row.series
                if series is not None and is_there(source := own_folder(run.folder, SERIES) / series):
                    suffix = Path(series).suffix
                    series = f"{number}-{series.removesuffix(suffix)[:200]}-{sha256(series.encode()).hexdigest()[:8]}{suffix}"
                    path = own_folder(output, SERIES) / series
                    write_atomically(path, read_bytes(source, most_bytes=MOST_SERIES_BYTES), sync=False)
                    copied.append(path)
                rows.append(replace(row, series=series))
        journal.add_rows(rows)
    except BaseException as error:
        for path in (*copied, output / ROWS):
            path.unlink(missing_ok=True)
        journal.run.rows.clear()  # so that closing it removes what it made
        if isinstance(error, OSError):
            raise UserError(f"can't write to {output}: {error.strerror}; make room and merge again") from error
        raise
    finally:
        journal.close()
    return journal.run
