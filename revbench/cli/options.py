"""Options that several commands share; what a field of a case is, is said where the field stands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from revbench.case import about
from revbench.errors import UserError

DEFAULT_BATCH_SIZE = 16  # of a command that only measures or predicts


def field_option(name: str, *declarations: str, more: str = "", **settings: Any) -> Any:
    """Returns an option that sets a field of every case; `more` is said after what the field is."""
    return typer.Option(*declarations, help=f"{about(name)} {more}".strip(), **settings)


Models = Annotated[list[str], typer.Argument(help="Catalogue names, or package.module:factory.")]
Strategies = Annotated[
    list[str] | None, typer.Option(help="A strategy; may be repeated. Default: all of ours that the model supports.")
]
BatchSize = Annotated[int, field_option("batch_size")]
ImageSize = Annotated[int | None, field_option("image_size")]
NumClasses = Annotated[int | None, field_option("num_classes")]
SequenceLength = Annotated[int | None, field_option("sequence_length")]
Depth = Annotated[int | None, field_option("depth")]
Coupling = Annotated[str, field_option("coupling")]
Dtype = Annotated[str, field_option("dtype")]
Autocast = Annotated[str, field_option("autocast")]
Optimizer = Annotated[str, field_option("optimizer")]
LearningRate = Annotated[float, field_option("learning_rate", show_default=False)]
Nonreversible = Annotated[str, field_option("nonreversible")]
Compile = Annotated[bool, field_option("compile", "--compile")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Output = Annotated[Path | None, typer.Option(help="The run folder. Default: reports/<time>.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Names = Annotated[
    list[str] | None,
    typer.Option(help="NAME=RUN: what the machine of this run is called; may be repeated.", metavar="NAME=RUN"),
]
RelativeTo = Annotated[str | None, typer.Option(help="The machine that the others stand beside. Default: the first.")]


def names_of_runs(given: Sequence[str], folders: Sequence[Path]) -> dict[Path, str]:
    """Returns what machines are called, by the folders of their runs; see `Names`.

    Raises:
        UserError: another form, or no folder among those.
    """
    return dict(_name_of_run(one, folders) for one in given)


def _name_of_run(given: str, folders: Sequence[Path]) -> tuple[Path, str]:
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
        raise UserError(f"--name {given}: {path} is none of the runs that are given")
    return found, name
