"""Measuring from a script or a notebook, also what exists nowhere else."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from revbench.case import Case
from revbench.case.labels import full_title
from revbench.case.pairs import paired
from revbench.errors import UserError, unknown
from revbench.report import Evidence, Table
from revbench.report.sections import all_sections
from revbench.results.frames import load_runs
from revbench.results.machines import environments_alike
from revbench.results.runs import Run
from revbench.results.schema import Row
from revbench.runner import DEFAULT_TIMEOUT_SECONDS, Session, open_run
from revbench.runner.kept import kept_server
from revbench.runner.registry import probe_of
from revbench.runner.session import result_of

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

_NOT_IN_A_CELL = frozenset(("claims", "methods", "terms", "hardware-and-software"))


class Measurements(Sequence[Row]):
    """What was measured: a sequence of rows that shows itself as the report's tables.

    Args:
        run: with the rows.
        scratch: a folder that goes with this object.
    """

    def __init__(self, run: Run, scratch: Path | None = None) -> None:
        self._run = run
        if scratch is not None:
            weakref.finalize(self, _remove, scratch, os.getpid())

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        return self._run.rows[index]

    def __len__(self) -> int:
        return len(self._run.rows)

    def to_frame(self) -> pd.DataFrame:
        """Returns the rows as `revbench.load_runs` does."""
        return load_runs(self._run.folder)

    def tables(self) -> list[Table]:
        """Returns what the report has of these rows, machine by machine."""
        found = []
        for ids in environments_alike(self._run):
            sections, _ = all_sections(Evidence(self._run, *ids))
            found += [
                block for section in sections for block in section.blocks
                if isinstance(block, Table) and block.name not in _NOT_IN_A_CELL
            ]  # fmt: skip
        return found

    def __repr__(self) -> str:
        lines = [f"{full_title(row.case)}, {row.probe}: {result_of(row)}" for row in self._run.rows]
        return "\n".join(lines) or "nothing was measured"

    def _repr_html_(self) -> str:
        from revbench.report.render.html import render_tables

        return render_tables(self.tables())


def _remove(folder: Path, maker: int) -> None:
    """Remove a folder; a fork of the process that made it leaves it alone."""
    if os.getpid() == maker:
        shutil.rmtree(folder, ignore_errors=True)


def measure(
    what: Case | str | nn.Module | Callable[[], Any],
    probes: str | Iterable[str] = ("time", "memory"),
    *,
    strategy: str | Sequence[str] | None = None,
    batch: Any = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    output: str | Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
    **fields: Any,
) -> Measurements:
    """Measure a training step of a network, each probe in a fresh worker process.

    A network that exists in this process only, a module or a function that was defined in a cell, is written down by value for
    the workers, with all that it refers to. What it changes while it is measured is not seen here. A module is measured with the
    weights that it has; a function is called for each measurement, with the case's seed, and returns what a factory does.

    Args:
        what: a case; a name of the catalogue, or of a factory (``package.module:factory``); a module; or a function that
            returns a module or ``(module, make_batch, loss)``.
        probes: the names of one or several; the reference lists them.
        strategy: one, or several to stand beside each other, which take turns where times are measured. If not given that of
            the case, of the module, or ``stored``.
        batch: what a module or a function's network is fed with: a tensor; ``(inputs, targets)``; or a function
            ``make_batch(batch_size, generator)``. Images as for the catalogue if not given.
        loss: from outputs and targets to a scalar; the mean square of the outputs for a batch that is given and has no loss.
        output: a run folder to write; the rows are only returned if not given.
        options: settings of a probe by its name, e.g. ``{"time": {"min_rounds": 20}}``.
        timeout_seconds: of each probe.
        fields: of the case, e.g. ``batch_size=16``.

    Returns:
        One row a case and probe; one that failed has a status other than ``ok`` and says why in ``message``. In a notebook it
        shows the report's tables.

    Raises:
        UserError: a case that can't be, an unknown probe or field, a network that can't be written down, or a folder that can't
            be written.

    Example:
        >>> revbench.measure("revnet-38", "memory", strategy=["stored", "reconstructed"], batch_size=16)
    """
    names = [probes] if isinstance(probes, str) else list(probes)
    for name in names:
        probe_of(name)
    for field in fields:
        known = [one.name for one in dataclasses.fields(Case) if one.name not in ("model", "strategy")]
        if field not in known:
            raise UserError(
                f"{unknown('field of a case', field, known)}; settings of a probe go into options={{{names[0]!r}: …}}"
            )
    for name in options or {}:
        if name not in names:
            raise unknown("probe among those that are measured", name, names)
    settings = {name: dict((options or {}).get(name, {})) for name in names}
    fixed = "drift" in settings and _is_fixed(what, batch)
    if fixed and settings["drift"].setdefault("draws", 1) != 1:
        raise UserError("a module with a batch of its own has one draw; give a function, or a make_batch, for several")
    scratch = Path(tempfile.mkdtemp(prefix="revbench-"))
    try:
        base, variables = case_of(what, batch, loss, fields, scratch)
        strategies = [strategy] if isinstance(strategy, str) else list(strategy or [base.strategy])
        cases = [base.under(name, base.nonreversible).check() for name in strategies]
        folder = Path(output) if output is not None else scratch / "run"
        server = kept_server(variables)
        with open_run(output=folder, device=base.device, server=server, command=["revbench.measure"]) as session:
            for name in names:
                _measure(session, cases, name, settings[name] or None, timeout_seconds)
            return Measurements(session.journal.run, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _is_fixed(what: Any, batch: Any) -> bool:
    """Tells whether neither weights nor batch change from draw to draw."""
    is_module = not isinstance(what, (Case, str)) and hasattr(what, "named_parameters")
    return is_module and batch is not None and not callable(batch)


def case_of(
    what: Any, batch: Any, loss: Any, fields: Mapping[str, Any], scratch: Path
) -> tuple[Case, Mapping[str, str]]:
    """Returns the case of whatever is measured, and what its workers find in their environment.

    Args:
        what, batch, loss, fields: as `measure` takes them.
        scratch: a folder, in which a module or function is written down.

    Raises:
        UserError: something else, or what can't be written down.
    """
    if isinstance(what, (Case, str)):
        if batch is not None or loss is not None:
            raise UserError(
                "batch and loss are of a module or a function that is given itself; a factory returns its own"
            )
        return (what.replace(**fields) if isinstance(what, Case) else Case(model=what, **fields)), {}
    if not callable(what):
        raise UserError(f"what is measured is a case, a name, a module or a function, not a {type(what).__name__}")
    from revbench.by_value import VARIABLE, ByValue, write_by_value

    thing = ByValue(what, batch, loss)
    items = thing.items()
    size: dict[str, Any] = {} if items is None or "batch_size" in fields else {"batch_size": items}
    if items is not None and fields.get("batch_size", items) != items:
        raise UserError(
            f"batch_size={fields['batch_size']} is not that of the batch, which has {items} items; leave it out"
        )
    folder = scratch / "by-value"
    folder.mkdir()
    case = Case(model=write_by_value(thing, folder), strategy=thing.strategy() or "stored", **fields, **size)
    return case, {VARIABLE: str(folder)}


def _measure(
    session: Session, cases: Sequence[Case], name: str, options: Mapping[str, Any] | None, timeout_seconds: float
) -> None:
    if probe_of(name).takes_group and len(cases) > 1:
        for group in paired(cases):
            session.measure_together(group, name, options=options, timeout_seconds=timeout_seconds * len(group))
        return
    for case in cases:
        session.measure(case, name, options=options, timeout_seconds=timeout_seconds)
