"""The command line door: ``revbench run | train | report | compare | merge | estimate | models | env``.

Exit codes: 0; 1 the gate failed; 2 the user's mistake, in one line; 3 no case could be measured; 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from revbench.errors import UserError, unknown

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Memory, time and numerical drift of reversible networks. `pytest --benchmark` runs the built-in suites.",
)  # fmt: skip

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_PROBES = ("time", "memory", "flops", "drift")
OTHER_PROBES = ("parameters", "lipschitz", "determinism", "leak", "nvml", "memory_history", "energy")
DRAWS = 6  # of weights and batch, in each launch of drift


@app.command()
def run(
    models: Annotated[list[str], typer.Argument(help="Catalogue names, or package.module:factory.")],
    strategy: Annotated[
        list[str] | None, typer.Option(help="A strategy; may be repeated. Default: all that the model supports.")
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            help="time, memory, flops, drift (the default four), lipschitz, determinism, leak, nvml, memory_history, energy,"
            " parameters."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Items a step.")] = 16,
    image_size: Annotated[int | None, typer.Option(help="Pixels. Default: the model's own.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="none, bfloat16 or float16.")] = "none",
    tf32: Annotated[bool, typer.Option("--tf32", help="TF32 arithmetic for float32, on a GPU that has it.")] = False,
    nonreversible: Annotated[str, typer.Option(help="kept or recomputed, where the strategy allows it.")] = "kept",
    kept_half_blocks: Annotated[
        int, typer.Option(help="Under reconstructed, half blocks at the end of a chain that keep their activations.")
    ] = 0,
    certify: Annotated[bool, typer.Option("--certify", help="Under reconstructed, certify the activations.")] = False,
    compile_pieces: Annotated[bool, typer.Option("--compile", help="torch.compile on each F, G and unit.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    repeats: Annotated[int, typer.Option(help="Launches of each case, interleaved.")] = 1,
    output: Annotated[Path | None, typer.Option(help="The run folder. Default: reports/<time>.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Finish this run, measuring nothing twice.")] = None,
    as_json: Json = False,
) -> None:
    """Measure models under their strategies and write a report."""
    from revbench.pytest_support.display import describe, figures
    from revbench.report import write_report
    from revbench.results.journal import Journal
    from revbench.runner.client import WorkerServer
    from revbench.runner.session import Session, check_device

    for name in probe or ():
        if name not in (*DEFAULT_PROBES, *OTHER_PROBES):
            raise unknown("probe", name, (*DEFAULT_PROBES, *OTHER_PROBES))
    if repeats < 1:
        raise UserError(f"--repeats={repeats} must be at least 1")
    if resume is not None and output is not None:
        raise UserError("--resume names the run folder already; leave --output away")
    common: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "compile": compile_pieces, "tf32_matmul": tf32, "tf32_convolution": tf32,
    }  # fmt: skip
    if device != "auto":
        common["device"] = device
    found = [case for model in models for case in _cases(model, strategy or (), nonreversible, common)]
    asked = {"kept_half_blocks": kept_half_blocks, "certify": certify}
    if any(asked.values()) and not any(case.strategy == "reconstructed" for case in found):
        raise UserError(
            "--kept-half-blocks and --certify are of strategy reconstructed, which is not among these cases"
        )
    cases = [(case.replace(**asked) if case.strategy == "reconstructed" else case).check() for case in found]
    folder = resume or output or Path("reports") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    with WorkerServer() as server:
        environment = server.environment()
        if device == "auto":
            device = "cuda" if environment["accelerators"] else "cpu"
        check_device(device, environment)
        cases = [case.replace(device=device) for case in cases]
        for case in {case.model: case for case in cases if ":" in case.model}.values():
            server.measure([case], "parameters")  # a factory that can't be built is found before anything is written
        journal = Journal(folder, resume=resume is not None)
        try:
            session = Session(journal, server, environment)
            for repeat in range(1, repeats + 1):
                for name in probe or DEFAULT_PROBES:
                    for case in cases:
                        options = {"draws": DRAWS, "first_draw": (repeat - 1) * DRAWS} if name == "drift" else None
                        row = session.measure(case, name, repeat=repeat, options=options)
                        if not as_json:
                            print(f"{name:<8} {describe(case):<58} {figures(row)}", flush=True)
        except KeyboardInterrupt:
            print(f"interrupted; go on with --resume {folder}", file=sys.stderr)
            raise
        finally:
            rows = list(journal.run.rows)
            journal.close()
            written = write_report([folder], folder) if rows else None
    assert written is not None
    if as_json:
        print(json.dumps({"rows": [row.to_json() for row in rows], "files": [str(path) for path in written.paths]}))
    else:
        for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
            print(line)
    if not any(row.ok for row in rows):
        raise typer.Exit(3)


def _cases(model: str, strategies: Any, nonreversible: str, fields: dict[str, Any]) -> list[Any]:
    from revbench.case import Case
    from revbench.models.catalogue import CATALOGUE
    from revbench.words import STRATEGIES

    known = CATALOGUE.get(model)
    supported = [s for s in STRATEGIES if not (known and known.family == "resnet" and s == "reconstructed")]
    return [
        Case(model=model, strategy=s, nonreversible="kept" if s == "stored" else nonreversible, **fields)
        for s in strategies or supported
    ]


@app.command()
def train(
    models: Annotated[list[str] | None, typer.Argument(help="Catalogue names, or package.module:factory.")] = None,
    pair: Annotated[str | None, typer.Option(help="A pair of the paper by its number: 38, 110, 164 or 104.")] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="For single models; may be repeated.")] = None,
    nulls: Annotated[int, typer.Option(help="Of a pair: runs that differ by one unit in the last place.")] = 1,
    seeds: Annotated[int, typer.Option(help="Trainings of each, on other weights and batches.")] = 1,
    seed: Annotated[int, typer.Option(help="The first.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Default: the paper's 80,000. The schedule is scaled.")] = None,
    epochs: Annotated[float | None, typer.Option(help="In place of --steps.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 100,
    data: Annotated[
        str, typer.Option(help="digits, cifar10, cifar100, or a folder of images as PATH or LABEL=PATH.")
    ] = "digits",
    images: Annotated[int | None, typer.Option(help="Train on so many of them. Default: all.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="none, bfloat16 or float16.")] = "none",
    compile_pieces: Annotated[bool, typer.Option("--compile", help="torch.compile on each F, G and unit.")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="This memory format.")] = False,
    accumulate: Annotated[int, typer.Option(help="Parts of a batch, whose gradients are added.")] = 1,
    clip: Annotated[float, typer.Option(help="Cut the gradient to this norm; 0: not.")] = 0.0,
    evaluations: Annotated[int, typer.Option(help="Of the validation set, evenly spread.")] = 10,
    drift_every: Annotated[int, typer.Option(help="Measure the gradient's drift every so many steps; 0: never.")] = 0,
    checkpoint_every: Annotated[int, typer.Option(help="Steps; 0: no checkpoints.")] = 500,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: Annotated[Path | None, typer.Option(help="The run folder. Default: reports/<time>.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, from its checkpoints.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model, or a pair with its null, on real images by the paper's schedule, and write a report."""
    from revbench.training.command import train_all

    ended = train_all(
        models or (), pair, strategy or (), nulls=nulls, seeds=range(seed, seed + seeds), steps=steps, epochs=epochs,
        data=data, images=images, device=device, output=output, resume=resume, quiet=as_json,
        fields={
            "batch_size": batch_size, "dtype": dtype, "autocast": autocast, "compile": compile_pieces, "clip_norm": clip,
            "memory_format": "channels_last" if channels_last else "contiguous", "accumulate": accumulate,
        },
        options={"evaluations": evaluations, "drift_every": drift_every, "checkpoint_every": checkpoint_every},
    )  # fmt: skip
    if as_json:
        files = [str(path) for path in ended.written.paths]
        print(json.dumps({"rows": [row.to_json() for row in ended.rows], "files": files}))
    if not any(row.ok for row in ended.rows):
        raise typer.Exit(3)


@app.command()
def estimate(
    models: Annotated[list[str], typer.Argument(help="Catalogue names, or package.module:factory.")],
    strategy: Annotated[
        list[str] | None, typer.Option(help="A strategy; may be repeated. Default: all that the model supports.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Items a step.")] = 100,
    image_size: Annotated[int | None, typer.Option(help="Pixels. Default: the model's own.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="none, bfloat16 or float16.")] = "none",
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    nonreversible: Annotated[str, typer.Option(help="kept or recomputed, where the strategy allows it.")] = "kept",
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
    from revbench.prediction.several import estimate_all
    from revbench.units import parse_bytes

    limit = None if fit is None else parse_bytes(fit)
    if fit_depth and limit is None:
        raise UserError("--fit-depth needs --fit SIZE, the memory to fill")
    if plot is not None and plot.suffix not in (".svg", ".png", ".pdf"):
        raise UserError(f"--plot {plot}: the file must end in .svg, .png or .pdf")
    if plot is not None and not plot.parent.is_dir():
        raise UserError(f"can't write {plot}: there is no folder {plot.parent}")
    common: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "optimizer": optimizer, "device": device,
    }  # fmt: skip
    found = estimate_all(models, strategy or (), nonreversible, common, limit_bytes=limit, depth=fit_depth)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        show(found)
    if not found.predictions:
        raise typer.Exit(3)
    if plot is not None:
        from revbench.report.step_memory import draw_predictions

        draw_predictions(found.predictions, plot)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write. Default: into the run folder, if it is one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render runs as HTML, PDF and Markdown."""
    from revbench.report import write_report

    if output is None and len(folders) > 1:
        raise UserError("a report of several runs needs --output DIR")
    written = write_report(folders, output or folders[0])
    if as_json:
        print(json.dumps({"files": [str(path) for path in written.paths], "notes": list(written.notes)}))
        return
    for line in (*written.notes, *(str(path) for path in written.paths)):
        print(line)


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="The run folder that others are compared to.")],
    run: Annotated[Path, typer.Argument(help="The run folder that is compared.")],
    as_json: Json = False,
) -> None:
    """Fail if the drift of a run got worse than the baseline's, beyond its noise."""
    from revbench.compare import compare_folders

    found = compare_folders(baseline, run)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        for line in found.lines():
            print(line)
    if found.failed:
        raise typer.Exit(1)


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Run folders, of one machine or of many.")],
    output: Annotated[Path, typer.Option(help="A new folder.")],
    as_json: Json = False,
) -> None:
    """Join runs to one, and write its report."""
    from revbench.report import write_report
    from revbench.results.merge import merge_runs

    run = merge_runs(folders, output)
    written = write_report([output], output)
    if as_json:
        print(
            json.dumps(
                {"rows": len(run.rows), "environments": len(run.environments), "files": [str(p) for p in written.paths]}
            )
        )
        return
    print(f"{len(run.rows)} rows of {len(run.environments)} environments in {output}")
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        print(line)


@app.command()
def models(as_json: Json = False) -> None:
    """List the catalogue: our parameter counts beside the paper's."""
    import torch

    from revbench import paper
    from revbench.models import CATALOGUE, build_model

    printed = {row.model: row.parameters_millions for row in paper.TABLE_2}
    found: list[dict[str, Any]] = []
    for name, a in CATALOGUE.items():
        for classes in (10, 100) if a.stem == "cifar" else (a.num_classes,):
            with torch.device("meta"):
                count = sum(p.numel() for p in build_model(name, num_classes=classes).parameters())
            found.append(
                {
                    "model": name, "pair": a.pair, "units": list(a.units), "channels": [a.stem_channels, *a.channels],
                    "bottleneck": a.bottleneck, "image_size": a.image_size, "num_classes": classes, "parameters": count,
                    "published_millions": printed.get(name, {}).get(classes),
                }
            )  # fmt: skip
    if as_json:
        print(json.dumps(found))
        return
    header = ("model", "pair", "units", "channels", "bottleneck", "classes", "parameters", "paper, M")
    rows = [
        (
            m["model"], m["pair"], "-".join(map(str, m["units"])), "-".join(map(str, m["channels"])),
            "yes" if m["bottleneck"] else "no", str(m["num_classes"]), f"{m['parameters']:,}", m["published_millions"] or "–",
        )
        for m in found
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [c.rjust(w) if i >= 5 else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        print("  ".join(cells).rstrip())
    print(
        f"paper: Table 2 of {paper.GOMEZ_2017}; – not in it. It prints 45.2 M for revnet-104, whose rules give 45.4 M."
    )


@app.command()
def env(as_json: Json = False) -> None:
    """Describe this machine as its rows do."""
    from revbench.environment import summarise
    from revbench.runner.client import WorkerServer

    with WorkerServer() as server:
        environment = server.environment()
    print(json.dumps(environment) if as_json else f"{environment['environment_id']}  {summarise(environment)}")


def main() -> NoReturn:
    """Run the command line and end the process with the exit code of the contract."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no degree sign is no reason to fail
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # factories beside the user; last, so that nothing there shadows a library
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        # The parser's own complaints; their class lives in click or in typer, depending on typer's version.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message() or "give a command; --help lists them", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"revbench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
