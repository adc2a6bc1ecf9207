"""One invocation: measures cases through the worker server, writes the rows, repeats nothing that is there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from revbench.case import Case, is_gpu
from revbench.errors import UserError, first_line
from revbench.probes.declaration import Probe
from revbench.probes.declared import PARAMETERS, TIME
from revbench.results.journal import Journal, series_stem
from revbench.results.meanwhile import meanwhile
from revbench.results.schema import Key, Row, key_of
from revbench.results.wire import check_options
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, Progress, WorkerServer
from revbench.runner.invocation import describe_invocation
from revbench.runner.registry import OURS, probe_of, registry
from revbench.runner.settings import SETTINGS

_RETRIED = ("crashed", "timeout", "oom")


class _GroupDied(Exception):
    """The worker of several cases died, or was killed when its time was over."""


class Session:
    """Measures into a journal.

    Args:
        journal: where rows go; those it holds already are not measured again.
        server: forks the workers.
        environment: the fingerprint of this machine, from the server.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``: where it is measured, unless a case says otherwise.
        retry: measure again what the journal says to have crashed, timed out or lacked memory; those rows stay.
        commit: of the version of revbench that the server's workers run, where that is not this one.
        command: what is recorded as the command that measures; this process's own arguments if not given.

    Attributes:
        device: the device that is meant by ``auto``.
        replayed: how many rows were not measured again.

    Raises:
        UserError: the machine has no such device.
    """

    def __init__(
        self,
        journal: Journal,
        server: WorkerServer,
        environment: dict[str, Any],
        *,
        device: str = "auto",
        retry: bool = False,
        commit: str | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        self.journal = journal
        self.environment = environment
        self.server = server
        self.device = resolve_device(device, environment)
        self._environment_id = journal.add_environment(environment)
        journal.add_invocation(describe_invocation(self._environment_id, command, commit=commit))
        self._found: dict[Key, Row] = {
            row.key: row for row in journal.run.rows if not (retry and row.status in _RETRIED)
        }
        self._fresh: set[Key] = set()  # measured by this session
        self.replayed = 0

    @property
    def notes(self) -> list[str]:
        """What a person should know before anything is measured."""
        why, warned = (self.environment.get(name) for name in ("unused_gpu", "gpu_warning"))
        of_gpus = [warned] if warned and is_gpu(self.device) else []
        if why and not is_gpu(self.device):
            of_gpus.append(f"{why}. The CPU is measured.")
        return [*self.journal.notes, *of_gpus]

    def supported_strategies(self, case: Case) -> list[str]:
        """Returns those of our own strategies that the network of a case says it supports; nothing is written.

        Raises:
            UserError: it can't be built.
        """
        answer = self.server.measure([case], PARAMETERS.name)
        if answer["status"] != "ok":
            raise UserError(f"model {case.model!r} can't be built: {answer['message']}")
        return str(answer["measurements"][0]["metrics"]["strategies"]).split(", ")

    def measure(
        self,
        case: Case,
        probe: str,
        *,
        repeat: int = 1,
        options: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        silence_seconds: float | None = None,
        progress: Progress = lambda _: None,
    ) -> Row:
        """Returns the row of one probe on one case: measured in a fresh worker, or taken from the journal.

        Args:
            case, probe: what is measured of what.
            repeat: number of the launch.
            options: the probe's own settings.
            timeout_seconds, silence_seconds, progress: see `WorkerServer.measure`.

        Raises:
            UserError: an unknown probe, or a case that can't be.
        """
        (row,) = self._measure(
            [case], probe_of(probe), repeat=repeat, options=options, timeout_seconds=timeout_seconds,
            silence_seconds=silence_seconds, progress=progress,
        )  # fmt: skip
        return row

    def remark(self, row: Row) -> str:
        """Says of a row, if it was there before, that it was; empty of one that this session measured."""
        if row.key in self._fresh:
            return ""
        return "  (before; --retry measures it again)" if row.status in _RETRIED else "  (measured before)"

    def measure_together(
        self,
        cases: Sequence[Case],
        probe: str,
        *,
        repeat: int = 1,
        options: Mapping[str, Any] | None = None,
        timeout_seconds: float | None = None,
    ) -> list[Row]:
        """Returns a row for each case: all measured in one fresh worker, or all taken from the journal.

        If that worker dies or comes to no end, each is measured by itself: it is not known whose fault it was.

        Raises:
            UserError: an unknown probe, a case that can't be, or cases that one process can't serve.
        """
        found = probe_of(probe)
        if not cases:
            return []
        if not found.takes_group:
            raise UserError(f"probe {probe} measures one case; give it to measure")
        for field in SETTINGS:
            if len({getattr(case, field) for case in cases}) > 1:
                raise UserError(f"cases that differ in {field} can't be measured in one process")
        settings: dict[str, Any] = {
            "repeat": repeat, "options": options, "silence_seconds": None,
            "timeout_seconds": timeout_seconds or DEFAULT_TIMEOUT_SECONDS * len(cases),
            "progress": lambda _: None,
        }  # fmt: skip
        try:
            return self._measure(cases, found, **settings)
        except _GroupDied:
            settings["options"] = {k: v for k, v in (options or {}).items() if k not in found.private_options}
            return [row for case in cases for row in self._measure([case], found, **settings)]

    def _measure(
        self,
        cases: Sequence[Case],
        probe: Probe,
        *,
        repeat: int,
        options: Mapping[str, Any] | None,
        timeout_seconds: float | None,
        silence_seconds: float | None,
        progress: Progress,
    ) -> list[Row]:
        for case in cases:
            case.check()
        asked = {name: value for name, value in (options or {}).items() if name not in probe.private_options}
        _check_options(probe, asked)
        keys = [key_of(case, probe.name, repeat, asked) for case in cases]
        stem = series_stem(keys[0])
        died = self._found.get(keys[0]) if probe.resumable else None
        if died is not None and not died.ok and self.journal.has_checkpoint(stem):
            del self._found[died.key]  # it is gone on with; its row stays, and another one stands beside it then
        known = [row for key in keys if (row := self._found.get(key)) is not None]
        if len(known) == len(cases):
            if probe.resumable and known[0].ok:  # killed between the row and this
                self.journal.remove_checkpoints(stem)
            self.replayed += sum(key not in self._fresh for key in keys)
            return known
        check_device(cases[0].device, self.environment)
        started, clock = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.perf_counter()
        written: str | None = None
        if probe.resumable:  # writes its series as it goes, beside the rows
            options = {**(options or {}), "folder": str(self.journal.folder.resolve()), "stem": stem}
            written = f"{stem}.jsonl"
        answer = self.server.measure(
            cases, probe.name, options=options, timeout_seconds=timeout_seconds, silence_seconds=silence_seconds,
            progress=progress,
        )  # fmt: skip
        if answer["status"] != "ok" and len(cases) > 1:
            raise _GroupDied
        elapsed = time.perf_counter() - clock
        rows = []
        for case, key, found in zip(cases, keys, answer.get("measurements", [answer]), strict=True):
            series = written if found.get("metrics") else None
            if found.get("series"):
                series = self.journal.add_series(key, found["series"])
            row = Row(
                case=case, probe=probe.name, repeat=repeat, status=found["status"], started=started,
                elapsed_seconds=elapsed / len(cases), environment_id=self._environment_id, options=asked,
                metrics=found.get("metrics", {}), samples=found.get("samples", {}), series=series,
                message=found.get("message"),
            )  # fmt: skip
            if key not in self._found:  # of a group that was cut off, the rows that are there stay as they are
                self.journal.add_row(row)
                self._found[key] = row
                self._fresh.add(key)
                if probe.resumable and row.ok:
                    self.journal.remove_checkpoints(stem)
            rows.append(self._found[key])
        return rows


def _check_options(probe: Probe, options: Mapping[str, Any]) -> None:
    """Raise a `UserError` unless a row can hold these settings."""
    for name, value in options.items():
        try:
            check_options({name: value})
        except UserError as error:
            raise UserError(
                f"{name}={str(value)[:60]} of probe {probe.name} must be a finite number, a word, or a list of those ({error})"
            ) from error


def resolve_device(device: str, environment: Mapping[str, Any]) -> str:
    """Returns the device that is meant: ``auto`` is ``cuda`` where the machine of this fingerprint has a GPU, else ``cpu``.

    Raises:
        UserError: the machine has no such device.
    """
    if device == "auto":
        return "cuda" if environment["accelerators"] else "cpu"
    check_device(device, environment)
    return device


def check_device(device: str, environment: Mapping[str, Any]) -> None:
    """Raise a `UserError` if the machine of this fingerprint has no such device."""
    kind, _, index = device.partition(":")
    count = len(environment["accelerators"])
    if kind == "cuda" and (count == 0 or (index and not (index.isdigit() and int(index) < count))):
        there = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
        why = environment.get("unused_gpu") or f"this machine has {there}"
        raise UserError(f"device {device!r} is not there: {why}; use cpu")


def result_of(row: Row) -> str:
    """Returns what was measured, in a line for a person, or why there is nothing."""
    if not row.ok:
        return f"{row.status}: {row.message}"
    if row.probe in OURS:
        noise = meanwhile([row]) if row.probe == TIME.name else []
        return OURS[row.probe].line(row.metrics) + (f"; {', '.join(noise)}" if noise else "")
    probe = registry().probes.get(row.probe)
    if probe is None:
        return "a probe that is not installed here"
    try:
        return probe.line(row.metrics)
    except Exception as error:  # of a unit that another package brings
        return f"measured, but its line can't be made: {type(error).__name__}: {first_line(error)[:300]}"
