"""What ``revbench train`` does: the members one after another, each in a worker of its own, side by side on the screen."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from revbench.case import Case
from revbench.errors import MAKE_ROOM, RunEnded, UserError
from revbench.report import Written, write_report
from revbench.results.journal import open_journal, series_stem
from revbench.results.runs import CHECKPOINTS, ROWS
from revbench.results.schema import Row, key_of
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session, resolve_device
from revbench.terminal import plain, say
from revbench.training.display import Board
from revbench.training.place import Place
from revbench.training.request import Request
from revbench.training.tasks import Task
from revbench.training.torchrun import TRAINING, Leader, follow

SILENCE_SECONDS = 3600.0  # without a step, an evaluated batch or a word: then a training is taken to hang


@dataclass(frozen=True)
class Ended:
    """The row of each training, and the files of the report."""

    rows: Sequence[Row]
    written: Written


def train_all(
    request: Request,
    *,
    device: str,
    output: Path | None,
    resume: Path | None,
    retry: bool,
    quiet: bool,
    place: Place | None,
) -> Ended | None:
    """Train, write the rows, render the report and print it all, the digests of the final weights last.

    Args:
        request: which trainings.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output, resume: the run folder; a new one, or one to go on with.
        retry: train again what died before its first checkpoint.
        quiet: print nothing.
        place: among the processes that torchrun started; that of rank 0 leads, the others take part and return None.

    Raises:
        UserError: settings that can't be, and nothing is written then; or what a training ran into (an image that can't be read,
            a full disk), and rows and checkpoints are kept.
        RunEnded: a process died, or the system asked this one to go; rows and checkpoints are kept.
    """
    if place is not None and device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: torchrun gives each process a GPU of its own; use cuda or cpu")
    if place is not None and place.rank:
        follow(place, lambda there: _tasks(request, place, there), device)
        return None
    cases = request.cases(1 if place is None else place.world_size)
    console = Console(quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = 120
    journal = open_journal(resume, output, retry=retry)
    folder = journal.folder
    for note in journal.notes:
        console.print(plain(note), markup=False, soft_wrap=True)
    try:
        try:
            with _told_to_go(), WorkerServer() if place is None else Leader(place) as server:
                environment = server.environment()
                device = resolve_device(device, environment)
                cases = [case.replace(device=device) for case in cases]
                if isinstance(server, Leader):
                    assert place is not None
                    if device == "cuda":
                        server.check_gpus()
                    server.digests = [task.digest for task in _tasks(request, place, device)]
                _check_checkpoints(folder, cases)
                session = Session(journal, server, environment, retry=retry)
                for other in server.environments if isinstance(server, Leader) else ():
                    journal.add_environment(other)
                rows = _train(cases, session, request.worker_options(), console)
        finally:
            journal.close()
    except KeyboardInterrupt:
        say(f"interrupted; {_what_is_left(folder)}", sys.stderr)
        if journal.run.rows:
            with suppress(UserError):  # that it was interrupted is what has to be said
                write_report([folder], folder)
        raise
    except UserError as error:
        if not str(error).endswith(MAKE_ROOM):
            raise
        raise UserError(f"{error}; then {_what_is_left(folder)}") from error
    except RunEnded as error:
        raise RunEnded(f"{error}; {_what_is_left(folder)}") from error
    written = write_report([folder], folder)
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        console.print(plain(line), markup=False, soft_wrap=True)
    for case, row in zip(cases, rows, strict=True):
        said = f"sha256 {row.metrics.get('weights_sha256')}" if row.ok else f"{row.status}: {row.message}"
        if not row.ok and journal.has_checkpoint(series_stem(row.key)):
            said += f"; go on with --resume {folder}"
        console.print(f"{plain(case.id)}  {plain(said)}", markup=False, soft_wrap=True)
    return Ended(rows, written)


def _train(cases: Sequence[Case], session: Session, options: Mapping[str, Any], console: Console) -> list[Row]:
    board = Board(cases, console)
    rows = []
    with board.shown():
        for case in cases:
            row = session.measure(
                case, TRAINING, options=options, timeout_seconds=None, silence_seconds=SILENCE_SECONDS,
                progress=board.progress(case),
            )  # fmt: skip
            board.ended(case, row)
            rows.append(row)
            if note := row.metrics.get("resume_note"):
                console.print(plain(note), markup=False)
    if not console.is_terminal:
        console.print(board.table())
    return rows


def _tasks(request: Request, place: Place, device: str) -> list[Task]:
    """The trainings of this command line for several processes, as each of them knows them."""
    options = request.worker_options()
    cases = [case.replace(device=device) for case in request.cases(place.world_size)]
    return [Task(case, options, SILENCE_SECONDS) for case in cases]


def _check_checkpoints(folder: Path, cases: Sequence[Case]) -> None:
    """Raise a `UserError` if a folder holds a checkpoint of none of these trainings: it would be left lying there."""
    stems = {series_stem(key_of(case, "training", 1, {})) for case in cases}
    for path in sorted((folder / CHECKPOINTS).glob("[!.]*.pt")):
        if path.name.partition(".")[0] not in stems:
            raise UserError(
                f"{path} is of another training than these; give the arguments with which it began, or name another folder"
            )


def _what_is_left(folder: Path) -> str:
    kept = (folder / ROWS).is_file()
    return f"go on with --resume {folder}" if kept else "begin again: it came to no checkpoint, and nothing is kept"


@contextmanager
def _told_to_go() -> Iterator[None]:
    """Inside, SIGTERM, by which schedulers announce their time limit and torchrun a dead process, ends the run in one line."""

    def go(number: int, frame: object) -> None:
        raise RunEnded("ended by SIGTERM (a time limit, or another process of this run died)")

    before = signal.signal(signal.SIGTERM, go)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
