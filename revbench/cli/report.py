"""``revbench report``: runs rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json
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
