"""Machines side by side: what `revbench compare --hardware` prints and writes."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import typer
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from revbench.report import Figure, Section, Table
from revbench.report.render.files import on_white
from revbench.report.render.markdown import section_lines
from revbench.results.files import own_folder, write_atomically
from revbench.terminal import markdown, plain, say_json


def write_machines(found: Section, output: Path, folders: Sequence[Path], names: Mapping[Path, str]) -> None:
    """Write ``machines.md`` and its pictures into a folder, with links to the runs, named as their machines are if they are."""
    for block in found.blocks:
        if isinstance(block, Figure):
            write_atomically(own_folder(output, "figures") / f"{block.name}.svg", on_white(block.svg))
    lines = section_lines(found, level=1)
    lines += ["## The runs", ""]
    for folder in folders:
        shown = markdown(folder.as_posix())
        if (folder / "report.md").is_file():
            shown = f"[{shown}]({quote(os.path.relpath(folder / 'report.md', output).replace(os.sep, '/'))})"
        lines.append(f"- {f'{markdown(names[folder])}: ' if folder in names else ''}{shown}")
    write_atomically(output / "machines.md", "\n".join([*lines, ""]))


def show_machines(found: Section, *, as_markdown: bool, as_json: bool) -> None:
    """Print the tables of machines side by side."""
    tables = [block for block in found.blocks if isinstance(block, Table)]
    if as_json:
        say_json([
            {"title": one.title, "columns": one.columns, "rows": one.rows, "notes": one.notes} for one in tables
        ])  # fmt: skip
    elif as_markdown:
        typer.echo("\n".join(section_lines(dataclasses.replace(found, blocks=tables), level=2)))
    else:
        _print_tables(tables)


def _print_tables(tables: Sequence[Table]) -> None:
    """Print tables for a narrow terminal: what many lines have in common, network and machine, stands above them once."""
    console = Console(soft_wrap=False)
    for one in tables:
        console.print(Text(plain(one.title), style="bold"))
        common = one.numeric_from - 1 if one.numeric_from < len(one.columns) else 0
        for shared, rows in itertools.groupby(one.rows, key=lambda row: tuple(row[:common])):
            if shared:
                console.print(Text(plain(", ".join(shared))))
            shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
            for i, column in enumerate(one.columns[common:], common):
                number = i >= one.numeric_from
                shown.add_column(
                    plain(column), justify="right" if number else "left", overflow="fold",
                    no_wrap=bool(common) and not number,
                )  # fmt: skip
            for row in rows:
                shown.add_row(*(Text(plain(cell)) for cell in row[common:]))
            console.print(shown)
        for note in one.notes:
            console.print(Text(plain(note), style="dim"))
        console.print()
