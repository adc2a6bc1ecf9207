"""``revbench run``: measure models under their strategies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from revbench.runner.registry import OURS, offered_names, registry
from revbench.terminal import say, say_json

if TYPE_CHECKING:
    from revbench.results.schema import Row

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
    from revbench.launch.measuring import Measuring, measure_all

    fields: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "compile": compile_pieces, "tf32_matmul": tf32, "tf32_convolution": tf32,
        "optimizer": optimizer, "learning_rate": learning_rate,
    }  # fmt: skip
    if device != "auto":
        fields["device"] = device
    asked = Measuring(
        models=models, strategies=strategy or (), probes=probe or _BY_DEFAULT, repeats=repeats, nonreversible=nonreversible,
        reconstructed={"kept_half_blocks": kept_half_blocks, "certify": certify}, fields=fields,
    )  # fmt: skip
    for problem in registry().problems:
        _complain(problem)
    found = measure_all(
        asked, device=device, output=output, resume=resume, retry=retry, note=_complain,
        show=_keep_quiet if as_json else _show,
    )  # fmt: skip
    if as_json:
        say_json({
            "rows": [row.to_json() for row in found.rows],
            "files": [str(path) for path in found.written.paths],
        })  # fmt: skip
    else:
        for line in (*found.written.notes, *(f"report: {path}" for path in found.written.paths[:1])):
            say(line)
    if not any(row.ok for row in found.rows):
        raise typer.Exit(3)


def _complain(line: str) -> None:
    say(line, sys.stderr)


def _show(row: Row) -> None:
    from revbench.runner.session import result_of

    say(f"{row.probe:<8} {describe(row.case):<58} {result_of(row)}")


def _keep_quiet(row: Row) -> None:
    """JSON is printed whole, at the end."""
