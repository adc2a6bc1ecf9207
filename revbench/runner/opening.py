"""A run is opened here, whichever door it comes through: a script, the command line, pytest."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from revbench.errors import MAKE_ROOM, Interrupted, RunEnded, UserError
from revbench.results.journal import open_journal
from revbench.results.runs import ROWS
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session


@contextmanager
def open_run(
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    retry: bool = False,
    device: str = "auto",
    server: AbstractContextManager[WorkerServer] | None = None,
    prefix: str = "--",
    command: Sequence[str] | None = None,
) -> Iterator[Session]:
    """Open a run folder, start a worker server and find the device; at the end let go of all three.

    A run without a row leaves no folder behind.

    Args:
        output: a new run folder; ``reports/<time>`` if neither this nor `resume` is given.
        resume: the folder of a run that is gone on with.
        retry: measure again what crashed, timed out or lacked memory in it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        server: that forks the workers, entered here; one of this run's own if not given.
        prefix: of the options that a message names.
        command: what is recorded as the command that measures; this process's own arguments if not given.

    Raises:
        UserError: a folder that can't be written or resumed, a device that is not there, or PyTorch can't be used here.
        RunEnded: something ended the server.
    """
    journal = open_journal(resume, output, retry=retry, prefix=prefix)
    try:
        with server or WorkerServer() as running:
            yield Session(journal, running, running.environment(), device=device, retry=retry, command=command)
    finally:
        journal.close()


@contextmanager
def open_run_of_command(*, resume: str | Path | None = None, **settings: Any) -> Iterator[Session]:
    """Does what `open_run` does, for a command: whatever ends it early says in its one line how it is gone on with.

    SIGTERM, by which schedulers announce their time limit and torchrun a dead process, ends it as an error does.

    Raises:
        UserError: as `open_run`.
        RunEnded: a process died, or the system asked this one to go.
        Interrupted: Ctrl-C.
    """
    folder = Path(resume) if resume is not None else None
    try:
        with _told_to_go(), open_run(resume=resume, **settings) as session:
            folder = session.journal.folder
            yield session
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {_what_is_left(folder)}") from error
    except UserError as error:
        if not str(error).endswith(MAKE_ROOM):
            raise
        raise UserError(f"{error}; then {_what_is_left(folder)}") from error
    except RunEnded as error:
        raise RunEnded(f"{error}; {_what_is_left(folder)}") from error


def _what_is_left(folder: Path | None) -> str:
    if folder is not None and (folder / ROWS).is_file():
        return f"go on with --resume {folder}"
    return "begin again: it came to no row and no checkpoint, and nothing is kept"


@contextmanager
def _told_to_go() -> Iterator[None]:
    def go(number: int, frame: object) -> None:
        raise RunEnded("ended by SIGTERM (a time limit, or another process of this run died)")

    before = signal.signal(signal.SIGTERM, go)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
