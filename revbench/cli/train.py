"""``revbench train``: train models, or a pair with its nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Autocast, Compile, Coupling, Device, Dtype, Json, LearningRate, Output, field_option
from revbench.paper.couplings import parse_coupling
from revbench.terminal import say_json


@app.command()
def train(
    models: Annotated[list[str] | None, typer.Argument(help="Catalogue names, or package.module:factory.")] = None,
    pair: Annotated[
        str | None,
        typer.Option(help="A pair, by a number (38, 110, 164, 104) or a network's name."),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="For single models; may be repeated. Default: reconstructed, of an ordinary network stored."),
    ] = None,
    nulls: Annotated[int, typer.Option(help="Of a pair: runs that differ by one unit in the last place.")] = 1,
    seeds: Annotated[int, typer.Option(help="Trainings of each, on other weights and batches.")] = 1,
    seed: Annotated[int, typer.Option(help="The first.")] = 0,
    recipe: Annotated[str | None, field_option("recipe", more="Default: the paper's for these networks.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Default: the recipe's 80,000, 600,000 or 5,000. The schedule is scaled.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Instead of --steps.")] = None,
    batch_size: Annotated[int | None, field_option("batch_size", more="Default: the recipe's 100, 256 or 16.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, cifar100, imagenet, or a folder of images as PATH or LABEL=PATH; of a language model"
            " python-docs, or a text as PATH or LABEL=PATH; factory: what its make_batch draws. Default: digits, or python-docs."
        ),
    ] = None,
    images: Annotated[int | None, typer.Option(help="Train on so many of them. Default: all.")] = None,
    validation_images: Annotated[int, typer.Option(help="Evaluate on so many; 0: all.")] = 0,
    loaders: Annotated[
        int | None,
        typer.Option(help="Under imagenet, processes that read files ahead. Default: the free cores, at most 8."),
    ] = None,
    coupling: Coupling = "additive",
    dtype: Dtype = "float32",
    autocast: Autocast = "none",
    compile_pieces: Compile = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="This memory format.")] = False,
    learning_rate: LearningRate = 0.0,
    accumulate: Annotated[int, field_option("accumulate")] = 1,
    clip: Annotated[float, field_option("clip_norm")] = 0.0,
    sync_batch_norm: Annotated[bool, field_option("sync_batch_norm", "--sync-batch-norm")] = False,
    evaluations: Annotated[int, typer.Option(help="Of the validation set, evenly spread.")] = 10,
    drift_every: Annotated[int, typer.Option(help="Measure the gradient's drift every so many steps; 0: never.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps; 0: no checkpoints.")] = 500,
    device: Device = "auto",
    output: Output = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, from its checkpoints.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: train again what died before its first checkpoint.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model, or a pair with its null, on real images by the paper's schedule or on text, and write a report.

    On several GPUs or machines: torchrun --nproc-per-node=N -m revbench train ...
    """
    from revbench.launch.command import train_all
    from revbench.launch.request import Request
    from revbench.training.rendezvous import Rank

    request = Request(
        models=models or (), pair=pair, strategies=strategy or (), nulls=nulls, seed=seed, seeds=seeds, recipe=recipe,
        steps=steps, epochs=epochs, batch_size=batch_size, data=data, images=images,
        fields={
            "coupling": str(parse_coupling(coupling)),
            "dtype": dtype, "autocast": autocast, "compile": compile_pieces, "clip_norm": clip,
            "memory_format": "channels_last" if channels_last else "contiguous", "accumulate": accumulate,
            "sync_batch_norm": sync_batch_norm, "learning_rate": learning_rate,
        },
        options={
            "validation_images": validation_images, "loaders": loaders, "evaluations": evaluations, "drift_every": drift_every,
            "checkpoint_every": checkpoint_every,
        },
    )  # fmt: skip
    rank = Rank.from_environment()
    ended = train_all(
        request, device=device, output=output, resume=resume, retry=retry, quiet=as_json, rank=rank
    )  # fmt: skip
    if ended is None:  # the first of several processes says how it went
        return
    if as_json:
        files = [str(path) for path in ended.written.paths]
        say_json({"rows": [row.to_json() for row in ended.rows], "files": files})
    if not any(row.ok for row in ended.rows):
        raise typer.Exit(3)
