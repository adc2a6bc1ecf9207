"""``revbench run``: measure models under their strategies."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revbench.cli.app import DEFAULT_BATCH_SIZE, Json, app
from revbench.errors import UserError, unknown
from revbench.terminal import say, say_json

if TYPE_CHECKING:
    from revbench.case import Case
    from revbench.runner.client import WorkerServer

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
    batch_size: Annotated[int, typer.Option(help="Items a step.")] = DEFAULT_BATCH_SIZE,
    image_size: Annotated[int | None, typer.Option(help="Pixels. Default: the model's own.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Default: the model's own.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16.")] = "float32",
    autocast: Annotated[str, typer.Option(help="none, bfloat16 or float16.")] = "none",
    tf32: Annotated[bool, typer.Option("--tf32", help="TF32 arithmetic for float32, on a GPU that has it.")] = False,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "sgd",
    learning_rate: Annotated[
        float, typer.Option(help="Default: weights stay where they were drawn.", show_default=False)
    ] = 0.0,
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
    retry: Annotated[
        bool, typer.Option("--retry", help="With --resume: measure again what crashed, timed out or lacked memory.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure models under their strategies and write a report."""
    from revbench.case import Case
    from revbench.pytest_support.display import describe, figures
    from revbench.report import write_report
    from revbench.results.journal import open_journal
    from revbench.runner.client import WorkerServer
    from revbench.runner.session import Session, resolve_device

    for name in probe or ():
        if name not in (*DEFAULT_PROBES, *OTHER_PROBES):
            raise unknown("probe", name, (*DEFAULT_PROBES, *OTHER_PROBES))
    if repeats < 1:
        raise UserError(f"--repeats={repeats} must be at least 1")
    common: dict[str, Any] = {
        "batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "dtype": dtype,
        "autocast": autocast, "compile": compile_pieces, "tf32_matmul": tf32, "tf32_convolution": tf32,
        "optimizer": optimizer, "learning_rate": learning_rate,
    }  # fmt: skip
    if device != "auto":
        common["device"] = device
    stored = [Case(model=model, **common) for model in dict.fromkeys(models)]
    for base in stored:  # mistakes are told before anything takes long
        for name in strategy or ("stored",):
            _under(base, name, nonreversible).check()
    asked = {"kept_half_blocks": kept_half_blocks, "certify": certify}
    if any(asked.values()) and strategy and "reconstructed" not in strategy:
        raise UserError(
            "--kept-half-blocks and --certify are of strategy reconstructed, which is not among these cases"
        )
    journal = open_journal(resume, output, retry=retry)
    folder = journal.folder
    for note in journal.notes:
        say(note, sys.stderr)
    try:
        with WorkerServer() as server:
            environment = server.environment()
            device = resolve_device(device, environment)
            cases = []
            for base in (case.replace(device=device) for case in stored):
                supported = _supported(
                    base, server
                )  # a factory that can't be built is found before anything is written
                for name in strategy or supported:
                    case = _under(base, name, nonreversible)
                    cases.append((case.replace(**asked) if name == "reconstructed" else case).check())
            if any(asked.values()) and not any(case.strategy == "reconstructed" for case in cases):
                raise UserError(
                    "--kept-half-blocks and --certify are of strategy reconstructed, which no model supports"
                )
            session = Session(journal, server, environment, retry=retry)
            for repeat in range(1, repeats + 1):
                for name in probe or DEFAULT_PROBES:
                    for case in cases:
                        options = {"draws": DRAWS, "first_draw": (repeat - 1) * DRAWS} if name == "drift" else None
                        row = session.measure(case, name, repeat=repeat, options=options)
                        if not as_json:
                            say(f"{name:<8} {describe(case):<58} {figures(row)}")
    except BaseException as error:
        journal.close()
        if isinstance(error, KeyboardInterrupt):
            said = f"go on with --resume {folder}" if journal.run.rows else "nothing was measured yet"
            say(f"interrupted; {said}", sys.stderr)
        if journal.run.rows:
            with suppress(UserError):  # what ended the run is what has to be said
                write_report([folder], folder)
        raise
    journal.close()
    rows = journal.run.rows
    written = write_report([folder], folder)
    if as_json:
        say_json({"rows": [row.to_json() for row in rows], "files": [str(path) for path in written.paths]})
    else:
        for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
            say(line)
    if not any(row.ok for row in rows):
        raise typer.Exit(3)


def _under(base: Case, strategy: str, nonreversible: str) -> Case:
    return base.replace(strategy=strategy, nonreversible="kept" if strategy == "stored" else nonreversible)


def _supported(case: Case, server: WorkerServer) -> list[str]:
    """The strategies that a model supports, as its network says.

    Raises:
        UserError: it can't be built.
    """
    answer = server.measure([case], "parameters")
    if answer["status"] != "ok":
        raise UserError(f"model {case.model!r} can't be built: {answer['message']}")
    return str(answer["found"][0]["metrics"]["strategies"]).split(", ")
