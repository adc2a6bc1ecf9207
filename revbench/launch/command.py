"""What ``revbench train`` does: the members one after another, each in a worker of its own, side by side on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from revbench.case import Case
from revbench.errors import UserError
from revbench.launch.board import Board
from revbench.launch.measuring import Measured
from revbench.launch.request import Request
from revbench.launch.tasks import Task
from revbench.launch.torchrun import Leader, follow
from revbench.report import report_if_it_ends_early, write_report
from revbench.results.journal import series_stem
from revbench.results.runs import CHECKPOINTS
from revbench.results.schema import Row, key_of
from revbench.runner import Session, open_run_of_command
from revbench.terminal import plain, printable
from revbench.training.declared import TRAINING
from revbench.training.rendezvous import Rank

_DIGEST, _RESUMED = TRAINING["weights_sha256"], TRAINING["resume_note"]

SILENCE_SECONDS = 3600.0  # without a step, an evaluated batch or a word: then a training is taken to hang


def train_all(
    request: Request,
    *,
    device: str,
    output: Path | None,
    resume: Path | None,
    retry: bool,
    quiet: bool,
    rank: Rank | None,
) -> Measured | None:
    """Train, write the rows, render the report and print it all, the digests of the final weights last.

    Args:
        request: which trainings.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output, resume: the run folder; a new one, or one to go on with.
        retry: train again what died before its first checkpoint.
        quiet: print nothing.
        rank: among the processes that torchrun started; that of rank 0 leads, the others take part and return None.

    Raises:
        UserError: settings that can't be, and nothing is written then; or what a training ran into (an image that can't be read,
            a full disk), and rows and checkpoints are kept.
        RunEnded: a process died, or the system asked this one to go; rows and checkpoints are kept.
    """
    if rank is not None and device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: torchrun gives each process a GPU of its own; use cuda or cpu")
    if rank is not None and rank.number:
        follow(rank, lambda there: _tasks(request, rank, there), device)
        return None
    cases = request.cases(1 if rank is None else rank.world_size)
    console = Console(quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = 120
    leader = Leader(rank) if rank is not None else None
    with open_run_of_command(resume=resume, output=output, retry=retry, device=device, server=leader) as session:
        journal, folder = session.journal, session.journal.folder
        for note in session.notes:
            _say(console, note)
        cases = [case.replace(device=session.device) for case in cases]
        if rank is not None and leader is not None:
            leader.prepare(_tasks(request, rank, session.device), session.device)
            for other in leader.environments:
                journal.add_environment(other)
        check_checkpoints(folder, cases)
        with report_if_it_ends_early(session):
            rows = _train(cases, session, request.worker_options(), console)
        written = write_report([folder], folder)
        for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
            _say(console, line)
        for case, row in zip(cases, rows, strict=True):
            said = f"sha256 {row.metrics.get(_DIGEST.name)}" if row.ok else f"{row.status}: {row.message}"
            if not row.ok and journal.has_checkpoint(series_stem(row.key)):
                said += f"; go on with --resume {folder}"
            _say(console, f"{plain(case.id)}  {plain(said)}")
    return Measured(rows, written)


def _say(console: Console, line: str) -> None:
    console.print(printable(line), markup=False, soft_wrap=True)


def _train(cases: Sequence[Case], session: Session, options: Mapping[str, Any], console: Console) -> list[Row]:
    board = Board(cases, console)
    rows = []
    with board.shown():
        for case in cases:
            row = session.measure(
                case, TRAINING.name, options=options, timeout_seconds=None, silence_seconds=SILENCE_SECONDS,
                progress=board.progress(case),
            )  # fmt: skip
            board.ended(case, row)
            rows.append(row)
            if note := row.metrics.get(_RESUMED.name):
                console.print(plain(note), markup=False)
    if not console.is_terminal:
        console.print(board.table())
    return rows


def _tasks(request: Request, rank: Rank, device: str) -> list[Task]:
    """Returns the trainings of this command line for several processes, as each of them knows them."""
    options = request.worker_options()
    cases = [case.replace(device=device) for case in request.cases(rank.world_size)]
    return [Task(case, options, SILENCE_SECONDS) for case in cases]


def check_checkpoints(folder: Path, cases: Sequence[Case]) -> None:
    """Raise a `UserError` if a folder holds a checkpoint of none of these trainings: it would be left lying there."""
    stems = {series_stem(key_of(case, TRAINING.name, 1, {})) for case in cases}
    for path in sorted((folder / CHECKPOINTS).glob("[!.]*.pt")):
        if path.name.partition(".")[0] not in stems:
            raise UserError(
                f"{path} is of another training than these; give the arguments with which it began, or name another folder"
            )
