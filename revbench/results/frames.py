"""Runs as pandas frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revbench.case import Case
from revbench.results.machines import Traits, names_of, number_of_alike, traits_of
from revbench.results.runs import Run, read_run

if TYPE_CHECKING:
    import pandas as pd

_MACHINE = ("machine", "cpu", "gpu", "torch")
_OF_A_ROW = ("probe", "repeat", "status", "environment_id", "started", "elapsed_seconds", "message")

# What a metric can't be called.
OWN_COLUMNS = frozenset(["run", "case_id", *_MACHINE, *_OF_A_ROW, *(field.name for field in dataclasses.fields(Case))])


def load_runs(*paths: str | Path | Iterable[str | Path]) -> pd.DataFrame:
    """Returns the rows of any number of runs in one frame.

    Args:
        paths: run folders (or their ``rows.jsonl``), one or many, each as an argument or in a list.

    Returns:
        One line a row: ``run`` (the folder's name), ``machine`` (its name, no two unlike ones the same), ``cpu``, ``gpu`` (None
        of a row that used none), ``torch`` (its version), ``case_id``, ``probe``, ``repeat``, ``status``,
        ``environment_id``, ``started``, ``elapsed_seconds``, ``message``, each field of the case under its name
        and each metric under its own.

    Raises:
        UserError: a path that is no run, or a line in it that is no record.
    """
    import pandas as pd

    runs = [read_run(Path(path)) for given in paths for path in ([given] if isinstance(given, (str, Path)) else given)]
    rows = [row for run in runs for row in run.rows]
    ids = {number: case.id for number, case in {id(row.case): row.case for row in rows}.items()}  # many are of one case
    columns: dict[str, list[Any]] = {
        "run": [run.folder.resolve().name for run in runs for _ in run.rows],
        "case_id": [ids[id(row.case)] for row in rows],
        **_machines(runs),
        **{name: [getattr(row, name) for row in rows] for name in _OF_A_ROW},
        **{field.name: [getattr(row.case, field.name) for row in rows] for field in dataclasses.fields(Case)},
    }
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    columns |= {name: [row.metrics.get(name) for row in rows] for name in metrics}
    frame: pd.DataFrame = pd.DataFrame(columns)
    return frame


def _machines(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Returns the columns of the machine of each row; rows of unlike machines never have the same name."""
    where = [
        (run.environments.get(row.environment_id), row.case.device, run.folder.resolve().name)
        for run in runs
        for row in run.rows
    ]
    traits: list[Traits] = []
    kinds: list[tuple[dict[str, Any], str, str]] = []
    found: dict[tuple[int, str], int] = {}
    for environment, device, folder in where:
        if environment is None or (id(environment), device) in found:
            continue
        number = number_of_alike(traits, traits_of(environment, [device]))
        if number == len(kinds):
            kinds.append((environment, device, folder))
        found[id(environment), device] = number
    names = names_of([(kind[0], [kind[1]]) for kind in kinds], [kind[2] for kind in kinds])
    known = [None if e is None else found[id(e), device] for e, device, _ in where]

    def trait(name: str) -> list[str | None]:
        return [None if i is None else traits[i].get(name) for i in known]

    return {
        "machine": [None if i is None else names[i] for i in known],
        "cpu": trait("CPU"), "gpu": trait("GPU"), "torch": trait("PyTorch"),
    }  # fmt: skip
