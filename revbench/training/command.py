"""What ``revbench train`` does: the members one after another, each in a worker of its own, side by side on the screen."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from revbench.case import Case
from revbench.errors import RunEnded, UserError, unknown
from revbench.models.catalogue import CATALOGUE
from revbench.recipes import RECIPES, Recipe
from revbench.report import Written, write_report
from revbench.results.journal import CHECKPOINTS, ROWS, Journal, series_stem
from revbench.results.schema import Row
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session, check_device
from revbench.training.display import Board
from revbench.training.members import model_cases, pair_cases, pair_of, recipe_of
from revbench.training.place import Place
from revbench.training.sources import DEFAULT_CLASSES, DIGITS, count_classes, count_training_images, split_data_option
from revbench.training.torchrun import Leader

TEN_YEARS_SECONDS = 10 * 365 * 24 * 3600.0


@dataclass(frozen=True)
class Ended:
    """The row of each training, and the files of the report."""

    rows: Sequence[Row]
    written: Written


def train_all(
    models: Sequence[str],
    pair: str | None,
    strategies: Sequence[str],
    *,
    nulls: int,
    seeds: Sequence[int],
    recipe: str | None,
    steps: int | None,
    epochs: float | None,
    batch_size: int | None,
    data: str,
    images: int | None,
    device: str,
    output: Path | None,
    resume: Path | None,
    quiet: bool,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
    place: Place | None,
) -> Ended:
    """Train, write the rows, render the report and print it all, the digests of the final weights last.

    Args:
        models, pair, strategies, nulls, seeds: which trainings; see `revbench.training.members`.
        recipe: a key of `revbench.recipes.RECIPES`; the paper's for these networks if None.
        steps, epochs, batch_size: the recipe's if None.
        data, images: what is trained on, and how many of them; all if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output, resume: the run folder; a new one, or one to go on with.
        quiet: print nothing.
        fields: more fields of every case.
        options: of `revbench.training.loop.measure_training`.
        place: among the processes that torchrun started; this one leads.

    Raises:
        UserError: settings that can't be; nothing is written then.
        RunEnded: a process died, or the system asked this one to go; rows and checkpoints are kept.
    """
    if (pair is None) == (not models):
        raise UserError("give one or more models, or --pair NUMBER")
    if pair is not None and strategies:
        raise UserError("--pair trains the RevNet stored and reconstructed; --strategy is for single models")
    if resume is not None and output is not None:
        raise UserError("--resume names the run folder already; leave --output away")
    for name, value, least in (
        ("nulls", nulls, 0), ("seeds", len(seeds), 1), ("steps", steps, 1), ("images", images, 1),
        *((name, value, 1 if name == "evaluations" else 0) for name, value in options.items()),
    ):  # fmt: skip
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}={value} must be at least {least}")
    if place is not None and device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device}: torchrun gives each process a GPU of its own; use cuda or cpu")
    if place is not None and fields["sync_batch_norm"] and options["drift_every"]:
        raise UserError("--drift-every measures in one process alone; leave it or --sync-batch-norm away")
    if recipe is not None and recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    name = recipe or recipe_of([pair_of(pair)[1]] if pair is not None else models)
    options = {**options, "loaders": _loaders() if options["loaders"] is None else options["loaders"]}
    label, source = split_data_option(data)
    if RECIPES[name].crop == "resized" and source == DIGITS:
        raise UserError(f"recipe {name} crops image files, and the digits are none; give --data PATH or --recipe cifar")
    available = count_training_images(source)
    count = min(images or available, available)
    batch_size = RECIPES[name].batch_size if batch_size is None else batch_size
    base = Case(
        model="", data=label, recipe=name, batch_size=batch_size, data_images=count if count < available else 0,
        training_steps=_steps(RECIPES[name], steps, epochs, count, batch_size),
        world_size=1 if place is None else place.world_size, **fields,
    )  # fmt: skip
    if pair is not None:
        cases = pair_cases(pair_of(pair), base, nulls=nulls, seeds=seeds)
    else:
        cases = model_cases(models, strategies, base, seeds=seeds)
    classes = count_classes(source)
    cases = [case.replace(num_classes=classes) if classes != _classes_of(case.model) else case for case in cases]
    for case in cases:
        case.check()
    folder = resume or output or Path("reports") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    console = Console(quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = 120
    journal = Journal(folder, resume=resume is not None)
    try:
        try:
            with _told_to_go(), WorkerServer() if place is None else Leader(place) as server:
                environment = server.environment()
                if device == "auto":
                    device = "cuda" if environment["accelerators"] else "cpu"
                check_device(device, environment)
                cases = [case.replace(device=device) for case in cases]
                _check_checkpoints(folder, cases)
                session = Session(journal, server, environment)
                for other in server.environments if isinstance(server, Leader) else ():
                    journal.add_environment(other)
                rows = _train(cases, session, {**options, "data_path": source}, console)
        finally:
            journal.close()
    except KeyboardInterrupt:
        print(f"interrupted; {_what_is_left(folder)}", file=sys.stderr)
        raise
    except RunEnded as error:
        raise RunEnded(f"{error}; {_what_is_left(folder)}") from error
    written = write_report([folder], folder)
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        console.print(line, markup=False, soft_wrap=True)
    for case, row in zip(cases, rows, strict=True):
        said = f"sha256 {row.metrics['weights_sha256']}" if row.ok else f"{row.status}: {row.message}"
        console.print(f"{case.id}  {said}", markup=False, soft_wrap=True)
    return Ended(rows, written)


def _train(cases: Sequence[Case], session: Session, options: Mapping[str, Any], console: Console) -> list[Row]:
    board = Board(cases, console)
    rows = []
    with board.shown():
        for case in cases:
            row = session.measure(
                case, "training", options=options, timeout_seconds=TEN_YEARS_SECONDS, progress=board.progress(case)
            )
            board.ended(case, row)
            rows.append(row)
            if note := row.metrics.get("resume_note"):
                console.print(note, markup=False)
    if not console.is_terminal:
        console.print(board.table())
    return rows


def _classes_of(model: str) -> int:
    return CATALOGUE[model].num_classes if model in CATALOGUE else DEFAULT_CLASSES


def _check_checkpoints(folder: Path, cases: Sequence[Case]) -> None:
    """Raise a `UserError` if a folder holds a checkpoint of none of these trainings: it would be left lying there."""
    stems = {series_stem((case.id, "training", 1)) for case in cases}
    for path in sorted((folder / CHECKPOINTS).glob("[!.]*.pt")):
        if path.name.partition(".")[0] not in stems:
            raise UserError(
                f"{path} is of another training than these; give the arguments with which it began, or name another folder"
            )


def _what_is_left(folder: Path) -> str:
    kept = (folder / ROWS).is_file()
    return f"go on with --resume {folder}" if kept else "it came to no checkpoint, and nothing is kept"


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


def _loaders() -> int:
    """One a core that the processes of this machine leave free, at most 8 for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1, 0), 8)


def _steps(recipe: Recipe, steps: int | None, epochs: float | None, images: int, batch_size: int) -> int:
    if steps is not None and epochs is not None:
        raise UserError("give --steps or --epochs, not both")
    if epochs is None:
        return steps or recipe.steps
    if not epochs > 0:
        raise UserError(f"--epochs={epochs} must be more than 0")
    return max(round(epochs * images / max(batch_size, 1)), 1)
