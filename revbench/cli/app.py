"""The command line's parser, which the modules beside this one fill."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from revbench import __version__
from revbench.terminal import say

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Memory, time and numerical drift of reversible networks. `pytest --benchmark` runs the built-in suites.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _show_version(asked: bool) -> None:
    if asked:
        say(f"revbench {__version__}")
        raise typer.Exit(0)


@app.callback()
def before(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Among several processes that torchrun started, see that the command is for several."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return  # without importing what torchrun needs
    from revbench.launch.torchrun import check_command
    from revbench.training.rendezvous import Rank

    if Rank.from_environment() is not None:
        check_command(context.invoked_subcommand)
