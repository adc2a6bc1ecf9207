"""Options that several commands share; what a field of a case is, is said where the field stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from revbench.case import about

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
Dtype = Annotated[str, field_option("dtype")]
Autocast = Annotated[str, field_option("autocast")]
Optimizer = Annotated[str, field_option("optimizer")]
LearningRate = Annotated[float, field_option("learning_rate", show_default=False)]
Nonreversible = Annotated[str, field_option("nonreversible")]
Compile = Annotated[bool, field_option("compile", "--compile")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Output = Annotated[Path | None, typer.Option(help="The run folder. Default: reports/<time>.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
