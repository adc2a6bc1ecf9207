"""``revbench estimate``: predict what a step takes."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer

from revbench.cli.app import app
from revbench.cli.options import (
    DEFAULT_BATCH_SIZE,
    Autocast,
    BatchSize,
    Coupling,
    Depth,
    Dtype,
    ImageSize,
    Json,
    Models,
    Nonreversible,
    NumClasses,
    Optimizer,
    SequenceLength,
    Strategies,
)
from revbench.errors import UserError
from revbench.imports import factories_of
from revbench.paper.couplings import parse_coupling
from revbench.terminal import say_json


@app.command()
def estimate(
    models: Models,
    strategy: Strategies = None,
    batch_size: BatchSize = DEFAULT_BATCH_SIZE,
    image_size: ImageSize = None,
    sequence_length: SequenceLength = None,
    depth: Depth = None,
    coupling: Coupling = "additive",
    num_classes: NumClasses = None,
    dtype: Dtype = "float32",
    autocast: Autocast = "none",
    optimizer: Optimizer = "sgd",
    nonreversible: Nonreversible = "kept",
    device: Annotated[str, typer.Option(help="For which it is predicted: cuda or cpu; it need not be there.")] = "cuda",
    fit: Annotated[str | None, typer.Option(help="Memory, as 24GiB: also the largest batch that fits.")] = None,
    fit_depth: Annotated[
        bool, typer.Option("--fit-depth", help="With --fit: also the deepest network that fits, with this batch.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw memory over the step: a file ending in .svg, .png or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict memory and operations of a training step, without running it and without its device."""
    from revbench.prediction.display import show
    from revbench.prediction.estimates import estimate_all
    from revbench.units import parse_bytes

    limit = None if fit is None else parse_bytes(fit)
    if fit_depth and limit is None:
        raise UserError("--fit-depth needs --fit SIZE, the memory to fill")
    if plot is not None and plot.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"--plot {plot}: the file must end in .svg, .png or .pdf")
    if plot is not None and not plot.parent.is_dir():
        raise UserError(f"can't write {plot}: there is no folder {plot.parent}")
    common: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "sequence_length": sequence_length, "depth": depth,
        "coupling": str(parse_coupling(coupling)),
        "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "optimizer": optimizer, "device": device,
    }  # fmt: skip
    with factories_of(models), redirect_stdout(sys.stderr):  # what a factory prints is no part of the answer
        found = estimate_all(models, strategy or (), nonreversible, common, limit_bytes=limit, depth=fit_depth)
    if as_json:
        say_json(found.to_json())
    else:
        show(found)
    if not found.predictions:
        raise typer.Exit(3)
    if plot is not None:
        from revbench.report.charts.memory_timeline import draw_predictions

        draw_predictions(found.predictions, plot)
