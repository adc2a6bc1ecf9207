"""``revbench probes``: what can be measured."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json
from revbench.terminal import say, say_json


@app.command()
def probes(
    as_json: Json = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all metrics, as a page of documentation.")
    ] = False,
) -> None:
    """List what can be measured, with the probes that other packages bring."""
    from revbench.probes.reference import reference_of
    from revbench.runner.registry import registry

    found = registry()
    for problem in found.problems:
        say(problem, sys.stderr)
    if as_json:
        say_json([{**probe.to_json(), "package": found.packages.get(name)} for name, probe in found.probes.items()])
    elif as_markdown:
        for line in reference_of(found.probes.values()).splitlines():
            say(line)
    else:
        width = max(map(len, found.probes))
        for name, probe in found.probes.items():
            package = f" ({found.packages[name]})" if name in found.packages else ""
            say(f"{name:<{width}}  {probe.sentence}{package}")
