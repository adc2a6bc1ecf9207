"""``revbench run``: measure models under their strategies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revbench.case import Case
from revbench.case.labels import describe
from revbench.cli.app import app
from revbench.cli.options import (
    DEFAULT_BATCH_SIZE,
    Autocast,
    BatchSize,
    Compile,
    Device,
    Dtype,
    ImageSize,
    Json,
    LearningRate,
    Models,
    Nonreversible,
    NumClasses,
    Optimizer,
    Output,
    Strategies,
    field_option,
)
from revbench.errors import UserError
from revbench.runner.registry import OURS, offered_names, probe_of, registry
from revbench.terminal import say, say_json

if TYPE_CHECKING:
    from revbench.runner import Session

_BY_DEFAULT = [probe.name for probe in OURS.values() if probe.by_default]


@app.command()
def run(
    models: Models,
    strategy: Strategies = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            help=f"One of {', '.join(offered_names())}; may be repeated. Default: {', '.join(_BY_DEFAULT)}.",
        ),
    ] = None,
    batch_size: BatchSize = DEFAULT_BATCH_SIZE,
    image_size: ImageSize = None,
    num_classes: NumClasses = None,
    dtype: Dtype = "float32",
    autocast: Autocast = "none",
    tf32: Annotated[bool, typer.Option("--tf32", help="TF32 arithmetic for float32, on a GPU that has it.")] = False,
    optimizer: Optimizer = "sgd",
    learning_rate: LearningRate = 0.0,
    nonreversible: Nonreversible = "kept",
    kept_half_blocks: Annotated[int, field_option("kept_half_blocks")] = 0,
    certify: Annotated[bool, field_option("certify", "--certify")] = False,
    compile_pieces: Compile = False,
    device: Device = "auto",
    repeats: Annotated[int, typer.Option(help="Launches of each case, interleaved.")] = 1,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Finish this run, measuring nothing twice.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: measure again what crashed, timed out or lacked memory.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure models under their strategies and write a report."""
    from revbench.report import report_if_it_ends_early, write_report
    from revbench.runner import open_run_of_command
    from revbench.runner.session import result_of

    probes = probe or _BY_DEFAULT
    for name in probes:
        found = probe_of(name)
        if found.takes_group or found.resumable:
            raise UserError(
                f"--probe {name} can't be measured so: it takes several cases at once, or trains; this command offers"
                f" {', '.join(offered_names())}"
            )
    for problem in registry().problems:
        say(problem, sys.stderr)
    if repeats < 1:
        raise UserError(f"--repeats={repeats} must be at least 1")
    fields: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "compile": compile_pieces, "tf32_matmul": tf32, "tf32_convolution": tf32,
        "optimizer": optimizer, "learning_rate": learning_rate,
    }  # fmt: skip
    if device != "auto":
        fields["device"] = device
    bases = [Case(model=model, **fields) for model in dict.fromkeys(models)]
    reconstructed = {"kept_half_blocks": kept_half_blocks, "certify": certify}
    _check_early(bases, strategy or ["stored"], nonreversible, reconstructed if strategy else {})
    with open_run_of_command(output=output, resume=resume, retry=retry, device=device) as session:
        for note in session.journal.notes:
            say(note, sys.stderr)
        with report_if_it_ends_early(session):
            cases = _cases(session, bases, strategy or (), nonreversible, reconstructed)
            for repeat in range(1, repeats + 1):
                for name in probes:
                    options = probe_of(name).launch_options(repeat)
                    for case in cases:
                        row = session.measure(case, name, repeat=repeat, options=options)
                        if not as_json:
                            say(f"{name:<8} {describe(case):<58} {result_of(row)}")
        rows = session.journal.run.rows
        written = write_report([session.journal.folder], session.journal.folder)
    if as_json:
        say_json({"rows": [row.to_json() for row in rows], "files": [str(path) for path in written.paths]})
    else:
        for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
            say(line)
    if not any(row.ok for row in rows):
        raise typer.Exit(3)


_ONLY_RECONSTRUCTED = "--kept-half-blocks and --certify are of strategy reconstructed"


def _under(base: Case, strategy: str, nonreversible: str) -> Case:
    return base.replace(strategy=strategy, nonreversible="kept" if strategy == "stored" else nonreversible)


def _check_early(
    bases: Sequence[Case], strategies: Sequence[str], nonreversible: str, reconstructed: dict[str, Any]
) -> None:
    """Tell mistakes before anything takes long, as far as that is possible without building a network."""
    for base in bases:
        for name in strategies:
            _under(base, name, nonreversible).check()
    if any(reconstructed.values()) and "reconstructed" not in strategies:
        raise UserError(f"{_ONLY_RECONSTRUCTED}, which is not among these cases")


def _cases(
    session: Session,
    bases: Sequence[Case],
    strategies: Sequence[str],
    nonreversible: str,
    reconstructed: dict[str, Any],
) -> list[Case]:
    """Returns each model under each strategy that is asked for, or that it supports; a factory that can't be built is found here.

    Raises:
        UserError: what a worker finds wrong with a network.
    """
    cases = []
    for base in (base.replace(device=session.device) for base in bases):
        supported = session.supported_strategies(base)
        for name in strategies or supported:
            case = _under(base, name, nonreversible)
            cases.append((case.replace(**reconstructed) if name == "reconstructed" else case).check())
    if any(reconstructed.values()) and not any(case.strategy == "reconstructed" for case in cases):
        raise UserError(f"{_ONLY_RECONSTRUCTED}, which no model supports")
    return cases
