"""``revbench doctor``: every fault that is known, looked for in anybody's reversible network."""

from __future__ import annotations

from typing import Annotated

import typer

from revbench.checkup.declared import CHECKS
from revbench.cli.app import app
from revbench.cli.options import Coupling, Json, SequenceLength
from revbench.paper.couplings import parse_coupling
from revbench.terminal import say, say_json


@app.command()
def doctor(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, with arguments if it has some; or a catalogue name.")
    ],
    check: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CHECKS)}; may be repeated. Default: all.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Of a network with revbench.reversible inside. Default: reconstructed.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Items; a few are enough.")] = 4,
    image_size: Annotated[int | None, typer.Option(help="Of a catalogue network. Default: the smallest.")] = None,
    sequence_length: SequenceLength = None,
    coupling: Coupling = "additive",
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Look for every known fault of reversible networks; exit code 1 if there is one."""
    from revbench.case import Case
    from revbench.launch.doctor import examine, line_of, lines_of

    case = Case(
        model=model, strategy=strategy or "stored", batch_size=batch_size, sequence_length=sequence_length,
        image_size=image_size, coupling=str(parse_coupling(coupling)), device=device,
    )  # fmt: skip
    found = examine(case, checks=check or (), show=lambda finding: None if as_json else say(line_of(finding)))
    if as_json:
        say_json(found.to_json())
    else:
        for line in lines_of(found)[len(found.findings) :]:
            say(line)
    if not found.ok:
        raise typer.Exit(1)
