"""Pages of a PDF without large gaps: a picture that would leave one goes to the top of the next page, and text flows past it."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path

# Stands at the beginning and at the end of each block: its number, the page, and how far down that is, in points.
MARK = """
#let mark(block) = context [#metadata((block, here().page(), here().position().y / 1pt)) <mark>]
"""
_PAGE_POINTS = 842.0  # of A4
_GAP = 0.33  # of a page, that may stay empty
_MOST_PICTURES = 12  # that are moved: each takes a compilation


def compiled(source: Callable[[AbstractSet[int]], str], folder: Path) -> bytes:
    """Returns the document.

    Args:
        source: makes the text with some blocks floating, by their numbers; each begins and ends with a `MARK`.
        folder: of its pictures.

    Raises:
        typst.TypstError: it can't be compiled.
    """
    import typst

    main = folder / "report.typ"
    floating: set[int] = set()
    for _ in range(_MOST_PICTURES):
        main.write_text(source(floating), encoding="utf-8")
        marks = json.loads(typst.query(str(main), "<mark>", field="value", root=str(folder)))
        after = _after_a_gap(marks, floating)
        if after is None:
            break
        floating.add(after)
    main.write_text(source(floating), encoding="utf-8")
    pdf: bytes = typst.compile(str(main), root=str(folder))
    return pdf


def _after_a_gap(marks: list[tuple[int, int, float]], floating: AbstractSet[int]) -> int | None:
    """Returns the first block before which too much of a page stays empty, and that may float."""
    before: tuple[int, float] | None = None
    for block, page, points in marks:
        if block in floating:
            continue
        if before is not None and page > before[0] and before[1] < (1 - _GAP) * _PAGE_POINTS and block >= 0:
            return block
        before = page, points
    return None
