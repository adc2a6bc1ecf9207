"""``revbench train``: train models, or a pair with its nulls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import Json, app
from revbench.terminal import say_json


@app.command()
def train(
    models: Annotated[list[str] | None, typer.Argument(help="Catalogue names, or package.module:factory.")] = None,
    pair: Annotated[str | None, typer.Option(help="A pair of the paper by its number: 38, 110, 164 or 104.")] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(help="For single models; may be repeated. Default: reconstructed, of a ResNet stored."),
    ] = None,
    nulls: Annotated[int, typer.Option(help="Of a pair: runs that differ by one unit in the last place.")] = 1,
    seeds: Annotated[int, typer.Option(help="Trainings of each, on other weights and batches.")] = 1,
    seed: Annotated[int, typer.Option(help="The first.")] = 0,
    recipe: Annotated[
        str | None, typer.Option(help="cifar or imagenet. Default: the paper's for these networks.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Default: the recipe's 80,000 or 600,000. The schedule is scaled.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="In place of --steps.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a step, of all processes together. Default: the recipe's 100 or 256.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, imagenet, or a folder of images as PATH or LABEL=PATH.")
    ] = "digits",
    images: Annotated[int | None, typer.Option(help="Train on so many of them. Default: all.")] = None,
    validation_images: Annotated[int, typer.Option(help="Evaluate on so many; 0: all.")] = 0,
    loaders: Annotated[
        int | None,
        typer.Option(help="Under imagenet, processes that read files ahead. Default: the free cores, at most 8."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="none, bfloat16 or float16.")] = "none",
    compile_pieces: Annotated[bool, typer.Option("--compile", help="torch.compile on each F, G and unit.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="This memory format.")] = False,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    learning_rate: Annotated[
        float, typer.Option(help="At first. Default: the recipe's 0.1, of adamw 0.001.", show_default=False)
    ] = 0.0,
    accumulate: Annotated[int, typer.Option(help="Parts of a batch, whose gradients are added.")] = 1,
    clip: Annotated[float, typer.Option(help="Cut the gradient to this norm; 0: not.")] = 0.0,
    sync_batch_norm: Annotated[
        bool, typer.Option("--sync-batch-norm", help="Under torchrun, batch statistics of the whole batch.")
    ] = False,
    evaluations: Annotated[int, typer.Option(help="Of the validation set, evenly spread.")] = 10,
    drift_every: Annotated[int, typer.Option(help="Measure the gradient's drift every so many steps; 0: never.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps; 0: no checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="The run folder. Default: reports/<time>.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, from its checkpoints.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: train again what died before its first checkpoint.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model, or a pair with its null, on real images by the paper's schedule, and write a report.

    On several GPUs or machines: torchrun --nproc-per-node=N -m revbench train ...
    """
    from revbench.training.command import train_all
    from revbench.training.place import Place
    from revbench.training.request import Request

    request = Request(
        models=models or (), pair=pair, strategies=strategy or (), nulls=nulls, seed=seed, seeds=seeds, recipe=recipe,
        steps=steps, epochs=epochs, batch_size=batch_size, data=data, images=images,
        fields={
            "dtype": dtype, "autocast": autocast, "compile": compile_pieces, "clip_norm": clip,
            "memory_format": "channels_last" if channels_last else "contiguous", "accumulate": accumulate,
            "sync_batch_norm": sync_batch_norm, "optimizer": optimizer, "learning_rate": learning_rate,
        },
        options={
            "validation_images": validation_images, "loaders": loaders, "evaluations": evaluations, "drift_every": drift_every,
            "checkpoint_every": checkpoint_every,
        },
    )  # fmt: skip
    place = Place.from_environment()
    ended = train_all(
        request, device=device, output=output, resume=resume, retry=retry, quiet=as_json, place=place
    )  # fmt: skip
    if ended is None:  # the first of several processes says how it went
        return
    if as_json:
        files = [str(path) for path in ended.written.paths]
        say_json({"rows": [row.to_json() for row in ended.rows], "files": files})
    if not any(row.ok for row in ended.rows):
        raise typer.Exit(3)
