"""Runs a (case, probe) in a worker process of its own; `measure` is the door for a script or a notebook."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.results.journal import Journal
from revbench.results.schema import Row
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, WorkerServer
from revbench.runner.session import Session

__all__ = ["DEFAULT_TIMEOUT_SECONDS", "Session", "WorkerServer", "measure"]


def measure(
    case: Case,
    probes: str | Iterable[str] = ("time", "memory"),
    *,
    output: str | Path | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
) -> list[Row]:
    """Measure one case, each probe in a fresh worker process.

    Args:
        case: what to measure.
        probes: one or several, among ``time``, ``memory``, ``flops``, ``drift`` and the others of the reference.
        output: a run folder to write; the rows are only returned if not given.
        options: settings of a probe by its name, e.g. ``{"time": {"min_rounds": 20}}``.
        timeout_seconds: of each probe.

    Returns:
        One row a probe; one that failed has a status other than ``ok`` and says why in ``message``.

    Raises:
        UserError: a case that can't be, an unknown probe, or a folder that can't be written.

    Example:
        >>> rows = revbench.measure(revbench.Case(model="revnet-38", strategy="reconstructed", batch_size=16))
        >>> rows[0].metrics["step_seconds"]
    """
    with tempfile.TemporaryDirectory() as scratch, WorkerServer() as server:
        environment = server.environment()
        journal = Journal(Path(output) if output is not None else Path(scratch))
        try:
            session = Session(journal, server, environment)
            return [
                session.measure(case, probe, options=(options or {}).get(probe), timeout_seconds=timeout_seconds)
                for probe in ([probes] if isinstance(probes, str) else probes)
            ]
        finally:
            journal.close()
