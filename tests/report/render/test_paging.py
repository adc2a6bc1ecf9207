"""Pages without large gaps."""

from __future__ import annotations

from pathlib import Path

import pytest

from revbench.report.document import Figure, Paragraph, Report, Section, Table
from revbench.report.render.paging import _after_a_gap, compiled
from revbench.report.render.pdf import _source

TALL = '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="560"><rect width="400" height="560"/></svg>'


@pytest.mark.parametrize(
    ("marks", "floating", "found"),
    [
        ([(-1, 1, 300.0), (3, 2, 45.0)], set(), 3),
        ([(-1, 1, 700.0), (3, 2, 45.0)], set(), None),  # the page is full enough
        ([(-1, 1, 300.0), (-1, 2, 45.0)], set(), None),  # a table, which can't float
        (
            [(-1, 1, 300.0), (3, 2, 45.0), (-1, 1, 780.0), (4, 3, 45.0)],
            {3},
            None,
        ),  # text flows past the one that floats
        ([(-1, 1, 300.0), (3, 2, 45.0), (-1, 1, 400.0), (4, 2, 45.0)], {3}, 4),
        ([(3, 1, 45.0)], set(), None),
    ],
)
def test_a_picture_after_a_gap(marks: list[tuple[int, int, float]], floating: set[int], found: int | None) -> None:
    assert _after_a_gap(marks, floating) == found


def test_text_flows_past_a_picture_that_does_not_fit(tmp_path: Path) -> None:
    """The table behind it stands on the first page, where there is room for it, and the picture on the second."""
    typst = pytest.importorskip("typst")
    (tmp_path / "b.svg").write_text(TALL)
    rows = Table("T", ("a", "b"), [["x", "1"]] * 10)
    blocks = [*(Paragraph("word " * 300) for _ in range(2)), Figure("B", "b", TALL, ""), rows]
    report = Report("R", "", [Section("S", blocks)])
    asked: list[set[int]] = []

    def source(floating: object) -> str:
        assert isinstance(floating, set)
        asked.append(set(floating))
        return _source(report, floating)

    assert compiled(source, tmp_path).startswith(b"%PDF")
    assert asked == [set(), {2}, {2}]
    pages = {block: page for block, page, _ in _marks(typst, tmp_path)}
    assert pages == {-1: 1, 2: 2}


def _marks(typst: object, folder: Path) -> list[tuple[int, int, float]]:
    import json

    found: list[tuple[int, int, float]] = json.loads(
        typst.query(str(folder / "report.typ"), "<mark>", field="value", root=str(folder))  # type: ignore[attr-defined]
    )
    return found
