"""``revbench compare``: runs against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json, Names, RelativeTo, names_of_runs
from revbench.errors import UserError
from revbench.terminal import plain, say, say_json

if TYPE_CHECKING:
    from revbench.compare import Comparison
    from revbench.report import Table


@app.command()
def compare(
    baseline: Annotated[Path, typer.Argument(help="The run folder that others are compared to.")],
    runs: Annotated[list[Path], typer.Argument(help="The run folders that are compared.", metavar="RUN...")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="What else fails: 'METRIC > 5.5%', 'METRIC > 2GiB', 'METRIC @ PATTERN > …'; may be repeated. Default: those of"
            " [tool.revbench.gate] in pyproject.toml.",
            metavar="THRESHOLD",
        ),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    all_metrics: Annotated[bool, typer.Option("--all", help="Also list what stayed the same.")] = False,
    as_json: Json = False,
    hardware: Annotated[
        bool,
        typer.Option("--hardware", help="Show machines side by side, each relative to one; nothing fails."),
    ] = False,
    name: Names = None,
    relative_to: RelativeTo = None,
) -> None:
    """Compare runs with a baseline, case by case and metric by metric; fail if one got worse."""
    if hardware:
        if fail_on is not None or all_metrics:
            raise UserError("--hardware shows machines and fails nothing; omit --fail-on and --all")
        folders = [baseline, *runs]
        _show_machines(folders, names_of_runs(name or (), folders), relative_to, as_markdown, as_json)
        return
    if name or relative_to:
        raise UserError("--name and --relative-to are of machines side by side; give --hardware, too")
    from revbench.compare import compare_folders, comparison_markdown, thresholds_of, thresholds_of_project

    thresholds = thresholds_of(fail_on) if fail_on is not None else thresholds_of_project(Path.cwd())
    found = [compare_folders(baseline, run, thresholds) for run in runs]
    if as_json:
        say_json([one.to_json() for one in found] if len(found) > 1 else found[0].to_json())
    for one in found:
        if as_markdown:
            typer.echo(comparison_markdown(one))
        elif not as_json:
            show_comparison(one, all_metrics=all_metrics)
    blind = [one for one in found if one.blind]
    if blind:
        raise UserError(f"{blind[0].run}: {blind[0].why_blind()}")
    if any(one.failed for one in found):
        raise typer.Exit(1)


def _show_machines(
    folders: Sequence[Path], names: Mapping[Path, str], relative_to: str | None, as_markdown: bool, as_json: bool
) -> None:
    """Print the tables of machines side by side; their pictures are in the report."""
    import dataclasses

    from revbench.report import Table
    from revbench.report.build import machines_side_by_side
    from revbench.report.render.markdown import section_lines

    found = machines_side_by_side(folders, names=names, relative_to=relative_to)
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
    import itertools

    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

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


def show_comparison(found: Comparison, *, all_metrics: bool = False, gated: bool = False) -> None:
    """Print a table that fits a narrow terminal, then the verdict.

    Args:
        found: what was found.
        all_metrics: list what stayed the same, too.
        gated: list all that is gated, too.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from revbench.compare.markdown import change_of

    for title, names in (("missing", found.missing), ("new", found.new)):
        for name in names[:10]:
            say(f"{title}: {name}")
        if len(names) > 10:
            say(f"{title}: {len(names) - 10} more")
    for name, (before, now) in found.unlike.items():
        say(f"unlike machines: {name} {before} and {now}")
    listed = [
        finding for finding in found.findings if all_metrics or finding.outcome != "same" or (gated and finding.gated)
    ]
    if listed:
        table = Table(box=None, pad_edge=False)
        for head in ("", "Case and metric"):
            table.add_column(head)
        for head in ("Before", "Now", "Change"):
            table.add_column(head, justify="right")
        for finding in listed:
            before, now = (finding.shown(v) if v is not None else "–" for v in (finding.before, finding.now))
            outcome = finding.outcome.upper() if finding.gated else finding.outcome
            said = "".join(f"; {part}" for part in (finding.block, finding.words) if part)
            style = "red" if finding.gated and finding.outcome == "worse" else None
            cells = (outcome, f"{finding.title}: {finding.metric}{said}", before, now, change_of(finding))
            table.add_row(*(Text(plain(cell)) for cell in cells), style=style)
        Console(soft_wrap=False).print(table)
    say(found.verdict())
