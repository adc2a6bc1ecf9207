"""``revbench history``: metrics over many runs, and where they changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from revbench.cli.app import app
from revbench.terminal import plain, say, say_json

if TYPE_CHECKING:
    from revbench.compare.history import Histories

_MOST_NOTES = 5
_MOST_SHOWN = 20


@app.command()
def history(
    folder: Annotated[Path, typer.Argument(help="The folder that holds the run folders.", metavar="DIR")],
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="A metric, as step_seconds or memory.peak_bytes; may be repeated. Default: step_seconds, peak_bytes, step_flops,"
            " smooth_amplification, activation_error_epsilons."
        ),
    ] = None,
    case: Annotated[str, typer.Option(help="Only cases whose id is like this, as a shell's pattern.")] = "*",
    output: Annotated[
        Path | None, typer.Option(help="Where history.svg and history.json are written. Default: DIR.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and write nothing.")] = False,
) -> None:
    """Show metrics over many runs of a machine, and the runs at which they changed."""
    import json

    from revbench.compare.history import histories_of

    found = histories_of(folder, metrics=metric or (), pattern=case)
    if as_json:
        say_json(found.to_json())
        return
    from revbench.report.charts.history import MOST_PANELS, history_picture
    from revbench.results.files import write_atomically

    for note in found.notes[:_MOST_NOTES]:
        say(plain(note), sys.stderr)
    if len(found.notes) > _MOST_NOTES:
        say(f"passed over: {len(found.notes) - _MOST_NOTES} more", sys.stderr)
    _show(found)
    written = output or folder
    write_atomically(written / "history.svg", history_picture(found.found))
    write_atomically(written / "history.json", json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
    left = len(found.found) - MOST_PANELS
    more = f" (the first {MOST_PANELS}; {left} more are in history.json)" if left > 0 else ""
    say(plain(f"written: {written / 'history.svg'}{more}, {written / 'history.json'}"))


def _show(found: Histories) -> None:
    changed = [one for one in found.found if one.changes]
    for one in changed[:_MOST_SHOWN]:
        say(plain(f"{one.title} ({one.machine})"))
        for change in one.changes:
            before, after = (one.metric.show(value) or "–" for value in (change.before, change.after))
            by = f" ({change.by})" if change.by else ""
            beside = "; ".join(f"{name} {old} → {new}" for name, (old, new) in change.beside.items())
            word = "changed" if change.outcome == "other" else change.outcome
            said = f"{word} from {change.run} on: {before} → {after}{by}"
            say(f"  {plain(said)}{plain(f', beside {beside}' if beside else '')}")
    if len(changed) > _MOST_SHOWN:
        say(f"and {len(changed) - _MOST_SHOWN} more that changed")
    short = sum(not one.can_tell for one in found.found)
    untold = f", {short} have too few runs to tell a change from noise" if short else ""
    say(f"{found.runs} runs, {len(found.found)} metrics of cases: {len(changed)} changed{untold}")
