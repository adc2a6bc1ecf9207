"""What is done with runs that are there: ``revbench report | compare | merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import Json, app
from revbench.errors import UserError
from revbench.terminal import say, say_json


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
        say_json({"files": [str(path) for path in written.paths], "notes": list(written.notes)})
        return
    for line in (*written.notes, *(str(path) for path in written.paths)):
        say(line)


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
        say_json(found.to_json())
    else:
        for line in found.lines():
            say(line)
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
        files = [str(path) for path in written.paths]
        say_json({"rows": len(run.rows), "environments": len(run.environments), "files": files})
        return
    say(f"{len(run.rows)} rows of {len(run.environments)} environments in {output}")
    for line in (*written.notes, *(f"report: {path}" for path in written.paths[:1])):
        say(line)
