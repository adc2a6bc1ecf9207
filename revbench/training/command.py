"""What ``revbench train`` does: the members one after another, each in a worker of its own, side by side on the screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from revbench.case import Case
from revbench.errors import UserError
from revbench.recipes import PAPER
from revbench.report import Written, write_report
from revbench.results.journal import Journal
from revbench.results.schema import Row
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session, check_device
from revbench.training.display import Board
from revbench.training.members import model_cases, pair_cases, pair_of
from revbench.training.sources import count_classes, count_training_images, split_data_option

A_WEEK_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Ended:
    """All rows of the run folder, and the files of its report."""

    rows: Sequence[Row]
    written: Written


def train_all(
    models: Sequence[str],
    pair: str | None,
    strategies: Sequence[str],
    *,
    nulls: int,
    seeds: Sequence[int],
    steps: int | None,
    epochs: float | None,
    data: str,
    images: int | None,
    device: str,
    output: Path | None,
    resume: Path | None,
    quiet: bool,
    fields: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Ended:
    """Train, write the rows, render the report and print it all, the digests of the final weights last.

    Raises:
        UserError: settings that can't be; nothing is written then.
    """
    if (pair is None) == (not models):
        raise UserError("give one or more models, or --pair NUMBER")
    if pair is not None and strategies:
        raise UserError("--pair trains the RevNet stored and reconstructed; --strategy is for single models")
    if resume is not None and output is not None:
        raise UserError("--resume names the run folder already; leave --output away")
    for name, value, least in (
        ("nulls", nulls, 0), ("seeds", len(seeds), 1), ("steps", steps, 1), ("images", images, 1),
        *((name, value, 0 if name.endswith("every") else 1) for name, value in options.items()),
    ):  # fmt: skip
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')}={value} must be at least {least}")
    label, source = split_data_option(data)
    available = count_training_images(source)
    count = min(images or available, available)
    base = Case(model="", data=label, training_steps=_steps(steps, epochs, count, fields["batch_size"]), **fields)
    if (classes := count_classes(source)) != 10:
        base = base.replace(num_classes=classes)
    if pair is not None:
        cases = pair_cases(pair_of(pair), base, nulls=nulls, seeds=seeds)
    else:
        cases = model_cases(models, strategies, base, seeds=seeds)
    for case in cases:
        case.check()
    folder = resume or output or Path("reports") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    console = Console(quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = 120
    with WorkerServer() as server:
        environment = server.environment()
        if device == "auto":
            device = "cuda" if environment["accelerators"] else "cpu"
        check_device(device, environment)
        cases = [case.replace(device=device) for case in cases]
        journal = Journal(folder, resume=resume is not None)
        try:
            rows = _train(
                cases,
                Session(journal, server, environment),
                {**options, "data_path": source, "train_limit": count},
                console,
            )
        except KeyboardInterrupt:
            print(f"interrupted; go on with --resume {folder}", file=sys.stderr)
            raise
        finally:
            there = list(journal.run.rows)
            journal.close()
    written = write_report([folder], folder)
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        console.print(line, markup=False, soft_wrap=True)
    for case, row in zip(cases, rows, strict=True):
        said = f"sha256 {row.metrics['weights_sha256']}" if row.ok else f"{row.status}: {row.message}"
        console.print(f"{case.id}  {said}", markup=False, soft_wrap=True)
    return Ended(there, written)


def _train(cases: Sequence[Case], session: Session, options: Mapping[str, Any], console: Console) -> list[Row]:
    board = Board(cases, console)
    rows = []
    with board.shown():
        for case in cases:
            row = session.measure(
                case, "training", options=options, timeout_seconds=A_WEEK_SECONDS, progress=board.progress(case)
            )
            board.ended(case, row)
            rows.append(row)
            if note := row.metrics.get("resume_note"):
                console.print(note, markup=False)
    if not console.is_terminal:
        console.print(board.table())
    return rows


def _steps(steps: int | None, epochs: float | None, images: int, batch_size: int) -> int:
    if steps is not None and epochs is not None:
        raise UserError("give --steps or --epochs, not both")
    if epochs is None:
        return steps or PAPER.steps
    if not epochs > 0:
        raise UserError(f"--epochs={epochs} must be more than 0")
    return max(round(epochs * images / max(batch_size, 1)), 1)
