"""A report as data: what the HTML, PDF and Markdown renderers share."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

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
        notes: where the numbers come from, and what to know of them.
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
    """A headed piece of the report.

    Attributes:
        title: what stands above it.
        blocks: in reading order.
        part: the machine that it is of, in a report of several; sections of one part follow each other.
    """

    title: str
    blocks: Sequence[Block]
    part: str = ""

    @classmethod
    def of(cls, title: str, blocks: Iterable[Block | None]) -> Section | None:
        """Returns a section of those blocks that there are; None if there is none."""
        there = [block for block in blocks if block is not None]
        return cls(title, there) if there else None

    def check(self) -> None:
        """See that a section of another package can be rendered.

        Raises:
            TypeError: a value of another type than its attribute has.
            ValueError: a table whose rows have more or fewer cells than columns, a name that can be no file's, or a picture
                that is no SVG.
        """
        _check_strings("the title of the section", [self.title])
        for block in self.blocks:
            if isinstance(block, Paragraph):
                _check_strings("a paragraph", [block.text])
            elif isinstance(block, Table):
                _check_table(block)
            elif isinstance(block, Figure):
                _check_strings(
                    f"figure {block.name!r}", [block.title, block.name, block.svg, block.alternative, *block.notes]
                )
                if not re.fullmatch(r"[a-z0-9-]{1,60}", block.name):
                    raise ValueError(
                        f"a figure can't be called {block.name!r}; give lower-case letters, digits and hyphens"
                    )
                if not ElementTree.fromstring(block.svg).tag.endswith("svg"):
                    raise ValueError(f"figure {block.name!r} is no SVG")
            else:
                raise TypeError(f"a block is a {type(block).__name__}, not a Paragraph, Table or Figure")


def _check_table(table: Table) -> None:
    what = f"table {table.title!r}"
    _check_strings(what, [table.title, *table.columns, *table.notes])
    for row in table.rows:
        _check_strings(what, row)
        if len(row) != len(table.columns):
            raise ValueError(f"{what} has {len(table.columns)} columns and a row of {len(row)} cells")
    if not all(isinstance(number, int) for number in (table.numeric_from, *table.breaks)):
        raise TypeError(f"{what}: numeric_from and breaks are indices")


def _check_strings(what: str, texts: Iterable[object]) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{what} has a {type(text).__name__} where a string belongs: {str(text)[:60]}")


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

    @property
    def parts(self) -> list[tuple[str, list[Section]]]:
        """The sections by the machine that they are of; those of no machine, or of the only one, under an empty name."""
        return [(name, list(found)) for name, found in itertools.groupby(self.sections, key=lambda s: s.part)]


def leading(blocks: Iterable[Block], most: int = MOST_FIGURES, what: str = "figures") -> list[Block]:
    """Returns the first of them, and a word if there are more: what nobody can look through belongs in tables."""
    found = list(itertools.islice(blocks, most + 1))
    if len(found) > most:
        found[most] = Paragraph(f"These are the first {most} of such {what}; the tables have all cases.")
    return found
