"""``revbench export``: a run for tools that keep the history of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.errors import UserError
from revbench.terminal import say_json


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="customSmallerIsBetter or customBiggerIsBetter (github-action-benchmark), or bmf (Bencher).",
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.")] = None,
) -> None:
    """Print a run's metrics as JSON for github-action-benchmark or Bencher."""
    import json

    from revbench.compare.exports import exported
    from revbench.results.files import write_atomically
    from revbench.results.runs import read_run

    found = exported(read_run(run), form)
    if not found:
        raise UserError(f"{run} has no metric for {form}")
    if output is None:
        say_json(found)
    else:
        write_atomically(output, json.dumps(found, indent=1, allow_nan=False) + "\n")
