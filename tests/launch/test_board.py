"""The members of a training side by side on the screen."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from revbench.case import Case
from revbench.case.pairs import pair_cases
from revbench.launch.board import Board
from tests.results.rows import make_row

BASE = Case(model="", batch_size=8, training_steps=4, data="digits")


def board(width: int, **message: object) -> str:
    """What the board shows of a pair of which one member is done and one under way, on a console of this width."""
    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    cases = pair_cases(("resnet-32", "revnet-38"), BASE.replace(training_steps=80_000), nulls=1, seeds=[0])
    found = Board(cases, console)
    with found.shown():
        done = {"done": 80_000, "of": 80_000, "loss": 0.2, "error": 0.03, "step_seconds": 0.3, "peak_bytes": 9e8}
        found.progress(cases[0])(done)
        found.ended(cases[0], make_row(case=cases[0], probe="training", metrics={"validation_error": 0.0724}))
        step = found.progress(cases[1])
        step({**done, "done": 30_999, "loss": 1.234, "angle_degrees": 0.11})
        step({**done, "done": 31_000, "loss": 1.234, "step_seconds": 0.342, **message})
        shown = found.table()
    console.print(shown)
    return console.export_text()


def test_the_board_shows_all_members_side_by_side() -> None:
    lines = [" ".join(line.split()) for line in board(120).splitlines()[-5:]]
    assert lines[0] == "done step loss error a step memory angle left validation"
    assert lines[1].endswith("80,000/80,000 0.200 3.0% 300 ms 858.3 MiB 7.2%")
    assert lines[2].endswith("31,000/80,000 1.234 3.0% 342 ms 858.3 MiB 0.110° 4:39:18")  # the last angle stays
    assert lines[3:] == ["RevNet-38 reconstructed waits", "RevNet-38 stored null 1 waits"]
    assert "not finite" in board(120, loss=None)


@pytest.mark.parametrize("width", [65, 80, 100])
def test_a_narrow_board_leaves_columns_out_and_cuts_none(width: int) -> None:
    lines = board(width).splitlines()[-5:]
    assert "…" not in "".join(lines)
    assert "4:39:18" in lines[2]
    assert max(map(len, lines)) <= width
