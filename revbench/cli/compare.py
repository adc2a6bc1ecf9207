"""``revbench compare``: a run against a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


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
