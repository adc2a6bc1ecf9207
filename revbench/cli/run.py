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
    Coupling,
    Depth,
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
    SequenceLength,
    Strategies,
    field_option,
)
from revbench.errors import UserError
from revbench.paper.couplings import parse_coupling
from revbench.runner.registry import OURS, offered_names, registry
from revbench.terminal import say, say_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from revbench.launch.measuring import Measuring
    from revbench.results.schema import Row

LAUNCHES = 10  # of each of two versions: by so many a change of 5 % is found
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
    sequence_length: SequenceLength = None,
    depth: Depth = None,
    coupling: Coupling = "additive",
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
    repeats: Annotated[
        int | None, typer.Option(help=f"Launches of each case. Default: 1; with --interleave {LAUNCHES}.")
    ] = None,
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Finish this run, measuring nothing twice.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: measure again what crashed, timed out or lacked memory.")
    ] = False,
    interleave: Annotated[
        str | None,
        typer.Option(
            help="A commit, branch or tag: measure that version of the code, too, the steps of both taking turns, and fail if"
            " this one got worse.",
            metavar="REF",
        ),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help="With --interleave: a threshold, as of `revbench compare`.", metavar="THRESHOLD"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure models under their strategies and write a report."""
    from revbench.launch.measuring import Measuring, measure_all

    fields: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "sequence_length": sequence_length, "depth": depth,
        "coupling": str(parse_coupling(coupling)),
        "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "compile": compile_pieces, "tf32_matmul": tf32, "tf32_convolution": tf32,
        "optimizer": optimizer, "learning_rate": learning_rate,
    }  # fmt: skip
    if device != "auto":
        fields["device"] = device
    asked = Measuring(
        models=models, strategies=strategy or (), probes=probe or _BY_DEFAULT, nonreversible=nonreversible,
        repeats=repeats if repeats is not None else LAUNCHES if interleave else 1,
        reconstructed={"kept_half_blocks": kept_half_blocks, "certify": certify}, fields=fields,
    )  # fmt: skip
    for problem in registry().problems:
        _complain(problem)
    if fail_on and not interleave:
        raise UserError("--fail-on is of a comparison; give --interleave REF, too, or use revbench compare")
    if interleave:
        if resume is not None or retry:
            raise UserError("--interleave measures both versions anew; omit --resume and --retry")
        _side_by_side(asked, interleave, device=device, output=output, fail_on=fail_on or (), as_json=as_json)
        return
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


def _side_by_side(
    asked: Measuring, ref: str, *, device: str, output: Path | None, fail_on: Sequence[str], as_json: bool
) -> None:
    """Measure two versions, say what became of each metric, and end with the gate's exit code."""
    from revbench.cli.compare import show_comparison
    from revbench.compare import thresholds_of
    from revbench.launch.interleaving import measure_side_by_side

    found = measure_side_by_side(
        asked, ref, device=device, output=output, thresholds=thresholds_of(fail_on), note=_complain,
        show=_keep_quiet if as_json else _show,
    )  # fmt: skip
    if as_json:
        say_json({
            "commit": found.commit, "runs": [str(found.baseline), str(found.folder)],
            "comparison": found.comparison.to_json(),
        })  # fmt: skip
    else:
        show_comparison(found.comparison, gated=True)
        say(f"runs: {found.baseline} ({ref}, {found.commit[:10]}), {found.folder}")
    if found.comparison.blind:
        raise UserError(found.comparison.why_blind())
    if found.comparison.failed:
        raise typer.Exit(1)


def _complain(line: str) -> None:
    say(line, sys.stderr)


def _show(row: Row, remark: str) -> None:
    from revbench.runner.session import result_of

    say(f"{row.probe:<8} {describe(row.case):<58} {result_of(row)}{remark}")


def _keep_quiet(row: Row, remark: str) -> None:
    """JSON is printed whole, at the end."""
