"""``revbench report``: runs rendered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json, Names, RelativeTo, names_of_runs
from revbench.errors import UserError
from revbench.terminal import say, say_json

if TYPE_CHECKING:
    from revbench.compare import Comparison


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to write. Default: into the run folder, if it is one.")
    ] = None,
    name: Names = None,
    relative_to: RelativeTo = None,
    baseline: Annotated[
        Path | None, typer.Option(help="A run folder that the run is compared with, in a section of its own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Render runs as HTML, PDF and Markdown; several with all machines side by side first."""
    from revbench.report import write_report

    if output is None and len(folders) > 1:
        raise UserError("a report of several runs needs --output DIR")
    written = write_report(
        folders, output or folders[0], names=names_of_runs(name or (), folders), relative_to=relative_to,
        comparison=_comparison(baseline, folders),
    )  # fmt: skip
    if as_json:
        say_json({"files": [str(path) for path in written.paths], "notes": list(written.notes)})
        return
    for line in (*written.notes, *(str(path) for path in written.paths)):
        say(line)


def _comparison(baseline: Path | None, folders: list[Path]) -> Comparison | None:
    if baseline is None:
        return None
    if len(folders) > 1:
        raise UserError("--baseline is of one run; give one, or compare the others with `revbench compare`")
    from revbench.compare import compare_folders, thresholds_of_project

    return compare_folders(baseline, folders[0], thresholds_of_project(Path.cwd()))
