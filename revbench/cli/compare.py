"""``revbench compare``: runs against a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revbench.cli.app import app
from revbench.cli.options import Json, Names, RelativeTo, names_of_runs
from revbench.errors import UserError
from revbench.terminal import plain, say, say_json

if TYPE_CHECKING:
    from revbench.compare import Comparison


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
    output: Annotated[
        Path | None,
        typer.Option(help="With --hardware: a folder for machines.md, the same as Markdown with its pictures."),
    ] = None,
) -> None:
    """Compare runs with a baseline, case by case and metric by metric; fail if one got worse."""
    if hardware:
        if fail_on is not None or all_metrics:
            raise UserError("--hardware shows machines and fails nothing; omit --fail-on and --all")
        from revbench.cli.side_by_side import show_machines, write_machines
        from revbench.report.build import machines_side_by_side

        folders = [baseline, *runs]
        names = names_of_runs(name or (), folders)
        section = machines_side_by_side(folders, names=names, relative_to=relative_to)
        if output is not None:
            write_machines(section, output, folders, names)
        show_machines(section, as_markdown=as_markdown, as_json=as_json)
        return
    if name or relative_to or output:
        raise UserError("--name, --relative-to and --output are of machines side by side; give --hardware, too")
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
            style = "red" if finding.gated and finding.outcome == "worse" else None
            cells = (outcome, f"{finding.title}: {finding.metric_with_remarks}", before, now, change_of(finding))
            table.add_row(*(Text(plain(cell)) for cell in cells), style=style)
        Console(soft_wrap=False).print(table)
    say(found.verdict())
