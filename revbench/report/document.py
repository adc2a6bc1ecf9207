"""A report as data: what the HTML, PDF and Markdown renderers share."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

MISSING = "–"  # in a cell without a number
MOST_FIGURES = 8  # of one kind
LONGEST_NAME = 60  # letters
_NAME = rf"(?=.{{1,{LONGEST_NAME}}}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?"


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
        name: of its files and its anchor: lower-case letters, digits and hyphens; made of the title if empty.
        label: what it is called in the report, ``Table 3``; given by the report.
        see: for each row the name of the block that its numbers come from, or nothing.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric_from: int = 1
    notes: Sequence[str] = ()
    breaks: Sequence[int] = ()
    name: str = ""
    label: str = ""
    see: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        title: what it shows.
        name: of its files and its anchor.
        svg: the picture itself.
        alternative: what a person who can't see it should know.
        notes: as for a table.
        label: what it is called in the report, ``Figure 3``; given by the report.
    """

    title: str
    name: str
    svg: str
    alternative: str
    notes: Sequence[str] = ()
    label: str = ""


@dataclass(frozen=True)
class Fact:
    """One quantity on a card.

    Attributes:
        name: what it is.
        before, after: under ``stored``, and under the strategy that the card is of.
        change: what the second is of the first, or why nobody can say.
        better: whether the change is for the better; None where there is none, or where nobody can say.
        note: what else there is to know of it.
    """

    name: str
    before: str
    after: str
    change: str
    better: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Card:
    """What somebody must know of a network who reads nothing else.

    Attributes:
        title: the network.
        before, after: what the two columns of its facts are of.
        facts: in the order of their weight.
        where: under which circumstances, and on which machine.
    """

    title: str
    before: str
    after: str
    facts: Sequence[Fact]
    where: str


@dataclass(frozen=True)
class Cards:
    """Cards beside each other."""

    cards: Sequence[Card]


Block = Paragraph | Table | Figure | Cards


@dataclass(frozen=True)
class Section:
    """A headed piece of the report.

    Attributes:
        title: what stands above it.
        blocks: in reading order.
        part: the machine that it is of, in a report of several; sections of one part follow each other.
        folded: whether it is for experts: on a screen it is closed until somebody opens it.
    """

    title: str
    blocks: Sequence[Block]
    part: str = ""
    folded: bool = False

    @classmethod
    def of(cls, title: str, blocks: Iterable[Block | None], *, folded: bool = False) -> Section | None:
        """Returns a section of those blocks that there are; None if there is none."""
        there = [block for block in blocks if block is not None]
        return cls(title, there, folded=folded) if there else None

    def check(self) -> None:
        """See that a section of another package can be rendered.

        Raises:
            TypeError: a value of another type than its attribute has.
            ValueError: a table whose rows have more or fewer cells than columns, a name that can be no file's, or a picture
                that is no SVG.
        """
        _check_strings("the title of the section", [self.title])
        _check_sequence("the blocks of the section", self.blocks)
        for block in self.blocks:
            if isinstance(block, Paragraph):
                _check_strings("a paragraph", [block.text])
            elif isinstance(block, Table):
                _check_table(block)
            elif isinstance(block, Cards):
                _check_sequence("the cards", block.cards)
                for card in block.cards:
                    _check_card(card)
            elif isinstance(block, Figure):
                _check_strings(
                    f"figure {block.name!r}", [block.title, block.name, block.svg, block.alternative, *block.notes]
                )
                _check_name("a figure", block.name)
                if not ElementTree.fromstring(block.svg).tag.endswith("svg"):
                    raise ValueError(f"figure {block.name!r} is no SVG")
            else:
                raise TypeError(f"a block is a {type(block).__name__}, not a Paragraph, Table, Figure or Cards")


def _check_sequence(what: str, found: object) -> None:
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise TypeError(f"{what} are a {type(found).__name__}, not a list or a tuple")


def _check_card(card: Card) -> None:
    _check_sequence(f"the facts of card {card.title!r}", card.facts)
    _check_strings(f"card {card.title!r}", [card.title, card.before, card.after, card.where])
    for fact in card.facts:
        _check_strings(f"card {card.title!r}", [fact.name, fact.before, fact.after, fact.change, fact.note])
        if fact.better is not None and type(fact.better) is not bool:
            raise TypeError(f"card {card.title!r}: better is True, False or None, not {fact.better!r}")


def _check_name(what: str, name: str) -> None:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{what} can't be called {name!r}; give lower-case letters, digits, and hyphens between them")


def _check_table(table: Table) -> None:
    what = f"table {table.title!r}"
    for name in ("columns", "rows", "notes", "breaks", "see"):
        _check_sequence(f"{what}: its {name}", getattr(table, name))
    if not table.columns:
        raise ValueError(f"{what} has no columns")
    _check_strings(what, [table.title, *table.columns, *table.notes, table.name, *table.see])
    if table.name:
        _check_name("a table", table.name)
    if table.see and len(table.see) != len(table.rows):
        raise ValueError(f"{what} has {len(table.rows)} rows and names {len(table.see)} blocks to see")
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
    def labels(self) -> dict[str, str]:
        """What each table and figure is called, by its name."""
        return {b.name: b.label for s in self.sections for b in s.blocks if isinstance(b, (Table, Figure))}

    @property
    def parts(self) -> list[tuple[str, list[Section]]]:
        """The sections by the machine that they are of; those of no machine, or of the only one, under an empty name."""
        return [(name, list(found)) for name, found in itertools.groupby(self.sections, key=lambda s: s.part)]


def name_of(text: str) -> str:
    """Returns a name for files and anchors that is made of a text: what is no letter, digit or hyphen is none of it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST_NAME].strip("-") or "unnamed"


def leading(blocks: Iterable[Block], most: int = MOST_FIGURES, what: str = "figures") -> list[Block]:
    """Returns the first of them, and a word if there are more: what nobody can look through belongs in tables."""
    found = list(itertools.islice(blocks, most + 1))
    if len(found) > most:
        found[most] = Paragraph(f"These are the first {most} of such {what}; the tables have all cases.")
    return found
