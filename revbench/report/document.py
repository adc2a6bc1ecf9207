"""A report as data: what the HTML, PDF and Markdown renderers share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MISSING = "–"  # in a cell without a number
MOST_FIGURES = 8  # of one kind


@dataclass(frozen=True)
class Paragraph:
    """Running text, plain."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table of finished strings.

    Attributes:
        title: what it shows, with its unit where all cells share one.
        columns: headers; those from `numeric_from` on are numbers and aligned right.
        rows: cells, as many as columns each.
        numeric_from: index of the first column of numbers.
        notes: where the figures come from, and what to know of them.
        breaks: indices of rows before which a rule is drawn.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1
    notes: Sequence[str] = ()
    breaks: Sequence[int] = ()


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        title: what it shows.
        name: of its file, without ending.
        svg: the picture itself.
        alternative: what a person who can't see it should know.
        notes: as for a table.
    """

    title: str
    name: str
    svg: str
    alternative: str
    notes: Sequence[str] = ()


Block = Paragraph | Table | Figure


@dataclass(frozen=True)
class Section:
    """A headed part of the report."""

    title: str
    blocks: Sequence[Block]

    @classmethod
    def of(cls, title: str, blocks: Iterable[Block | None]) -> Section | None:
        """Returns a section of those blocks that there are; None if there is none."""
        there = [block for block in blocks if block is not None]
        return cls(title, there) if there else None


@dataclass(frozen=True)
class Report:
    """The whole.

    Attributes:
        title: of the report.
        subtitle: where and when it was measured.
        sections: in reading order.
        notes: what a person should know of what is missing; not part of the report itself.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)
    notes: Sequence[str] = ()


def leading(blocks: Iterable[Block], most: int = MOST_FIGURES, what: str = "figures") -> list[Block]:
    """Returns the first of them, and a word if there are more: what nobody can look through belongs in tables."""
    found = list(itertools.islice(blocks, most + 1))
    if len(found) > most:
        found[most] = Paragraph(f"These are the first {most} of such {what}; the tables have all cases.")
    return found
