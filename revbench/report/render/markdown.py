"""A Report as Markdown: for a job summary, a pull request or a README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from revbench.report.document import Block, Card, Cards, Figure, Report, Section, Table
from revbench.terminal import markdown


@dataclass(frozen=True)
class Names:
    """What the blocks of a report are called, and which are referred to."""

    labels: Mapping[str, str]
    seen: AbstractSet[str]


def render_markdown(report: Report) -> str:
    """Returns the text; pictures are links to the files in ``figures/``."""
    lines = [f"# {markdown(report.title)}", "", markdown(report.subtitle), ""]
    blocks = [block for section in report.sections for block in section.blocks]
    seen = {name for block in blocks if isinstance(block, Table) for name in block.see}
    names = Names(report.labels, seen)
    for part, sections in report.parts:
        if part:
            lines += [f"## {markdown(part)}", ""]
        for section in sections:
            lines += section_lines(section, level=3 if part else 2, names=names)
    return "\n".join(lines)


def section_lines(section: Section, *, level: int, names: Names | None = None) -> list[str]:
    """Returns the lines of a section under a heading of this level.

    Args:
        section: what to write.
        level: of the heading.
        names: of the tables and figures of its report; one that stands alone has none.
    """
    return [
        f"{'#' * level} {markdown(section.title)}",
        "",
        *(line for b in section.blocks for line in (*_block(b, names or Names({}, set())), "")),
    ]


def _block(block: Block, names: Names) -> list[str]:
    if isinstance(block, Table):
        heads, first = list(block.columns), block.numeric_from
        rows = [[markdown(cell) for cell in row] for row in block.rows]
        if block.see:
            heads.append("See")
            rows = [
                [*row, f"[{markdown(names.labels.get(name, name))}](#{name})" if name else ""]
                for row, name in zip(rows, block.see, strict=True)
            ]
        numbers = range(first, len(block.columns))
        return [*_captioned(block, names), *_table(heads, rows, numbers), *_notes(block.notes)]
    if isinstance(block, Figure):
        picture = f"![{markdown(block.alternative)}](figures/{block.name}.svg)"
        return [*_captioned(block, names), picture, *_notes(block.notes)]
    if isinstance(block, Cards):
        return [line for card in block.cards for line in (*_card(card), "")][:-1]
    return [markdown(block.text)]


def _captioned(block: Table | Figure, names: Names) -> Iterator[str]:
    """Yields the caption; what is referred to has an anchor."""
    anchor = f'<a name="{block.name}"></a>' if block.name in names.seen else ""
    label = f"{markdown(names.labels[block.name])}. " if block.name in names.labels else ""
    yield f"{anchor}**{label}{markdown(block.title)}**"
    yield ""


def _notes(notes: Sequence[str]) -> list[str]:
    return [line for note in notes for line in ("", f"<sub>{markdown(note)}</sub>")]


def _card(card: Card) -> list[str]:
    heads = [card.title, card.before, card.after, "", ""]
    rows = [[markdown(cell) for cell in (f.name, f.before, f.after, f.change, f.note)] for f in card.facts]
    return [*_table(heads, rows, range(1, 3)), "", f"<sub>{markdown(card.where)}</sub>"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: range) -> Iterator[str]:
    """Yields a table of cells that are Markdown."""
    yield _row([markdown(head) for head in heads])
    yield _row(["--:" if i in numbers else ":--" for i in range(len(heads))])
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
