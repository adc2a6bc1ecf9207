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
    name: Annotated[
        list[str] | None,
        typer.Option(help="NAME=RUN: what the machine of this run is called; may be repeated.", metavar="NAME=RUN"),
    ] = None,
    relative_to: Annotated[
        str | None, typer.Option(help="The machine that the others stand beside. Default: the first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render runs as HTML, PDF and Markdown; several with all machines side by side first."""
    from revbench.report import write_report

    names = dict(_name_of_run(given, folders) for given in name or ())

    if output is None and len(folders) > 1:
        raise UserError("a report of several runs needs --output DIR")
    written = write_report(folders, output or folders[0], names=names, relative_to=relative_to)
    if as_json:
        say_json({"files": [str(path) for path in written.paths], "notes": list(written.notes)})
        return
    for line in (*written.notes, *(str(path) for path in written.paths)):
        say(line)


def _name_of_run(given: str, folders: list[Path]) -> tuple[Path, str]:
    """Returns the folder and the name of ``NAME=RUN``.

    Raises:
        UserError: another form, or no folder of this report.
    """
    name, _, path = given.partition("=")
    name = name.strip()
    if not name or not path:
        raise UserError(f"--name {given}: give NAME=RUN, as A100=reports/a100")
    found = next((folder for folder in folders if folder.resolve() == Path(path).resolve()), None)
    if found is None:
        raise UserError(f"--name {given}: {path} is none of the runs of this report")
    return found, name
