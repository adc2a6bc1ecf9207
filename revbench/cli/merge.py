"""``revbench merge``: several runs joined to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


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
        files = [str(path) for path in written.paths]
        say_json({"rows": len(run.rows), "environments": len(run.environments), "files": files})
        return
    say(f"{len(run.rows)} rows of {len(run.environments)} environments in {output}")
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        say(line)
