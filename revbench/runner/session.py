"""One invocation: measures cases through the worker server, writes the rows, repeats nothing that is there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from revbench.case import Case
from revbench.errors import UserError, unknown
from revbench.results.journal import Journal
from revbench.results.schema import Key, Row
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, Progress, WorkerServer
from revbench.runner.worker import PROBES


class Session:
    """Measures into a journal.

    Args:
        journal: where rows go; those it holds already are not measured again.
        server: forks the workers.
        environment: the fingerprint of this machine, from the server.
    """

    def __init__(self, journal: Journal, server: WorkerServer, environment: dict[str, Any]) -> None:
        self.journal = journal
        self.environment = environment
        self._server = server
        self._environment_id = journal.add_environment(environment)
        self._found: dict[Key, Row] = {row.key: row for row in journal.run.rows}
        self.replayed = 0

    def measure(
        self,
        case: Case,
        probe: str,
        *,
        repeat: int = 1,
        options: Mapping[str, Any] | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        progress: Progress = lambda _: None,
    ) -> Row:
        """The row of one probe on one case: measured in a fresh worker, or taken from the journal.

        Raises:
            UserError: an unknown probe, or a case that can't be.
        """
        if probe not in PROBES:
            raise unknown("probe", probe, PROBES)
        case.check()
        known = self._found.get((case.id, probe, repeat))
        if known is not None:
            self.replayed += 1
            return known
        check_device(case.device, self.environment)
        started, clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
        answer = self._server.measure(case, probe, options=options, timeout_seconds=timeout_seconds, progress=progress)
        elapsed = time.perf_counter() - clock
        key = (case.id, probe, repeat)
        series = self.journal.add_series(key, answer["series"]) if answer.get("series") else None
        row = Row(
            case=case, probe=probe, repeat=repeat, status=answer["status"], started=started, elapsed_seconds=elapsed,
            environment_id=self._environment_id, options=_public(options or {}),
            metrics=answer.get("metrics", {}), samples=answer.get("samples", {}), series=series,
            message=answer.get("message"),
        )  # fmt: skip
        self.journal.add_row(row)
        self._found[key] = row
        return row


def check_device(device: str, environment: Mapping[str, Any]) -> None:
    """Raise a `UserError` if the machine of this fingerprint has no such device."""
    kind, _, index = device.partition(":")
    count = len(environment["accelerators"])
    if kind == "cuda" and (count == 0 or (index and not (index.isdigit() and int(index) < count))):
        there = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
        raise UserError(f"device {device!r} is not there: this machine has {there}; use cpu")


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that belong in a row: not where on this machine the data lay."""
    return {name: value for name, value in options.items() if name != "data_path"}
