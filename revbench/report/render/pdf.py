"""A Report as PDF, through typst."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

from revbench.report.document import Block, Card, Cards, Fact, Figure, Report, Table
from revbench.report.render.breaking import BREAK, breakable
from revbench.report.render.paging import MARK, compiled

_PREAMBLE = """
#set document(title: {title}, date: none)
#let sides = (x: 1.5cm, y: 1.6cm)
#set page(paper: "a4", margin: sides,
  footer: context align(right, text(8pt, fill: luma(110))[revbench #h(1em) #counter(page).display("1 / 1", both: true)]))
#set text(font: "Libertinus Serif", size: 10pt)
#set par(leading: 0.55em)
#show heading.where(level: 1): it => block(above: 1.4em, below: 0.8em, text(14pt, it.body))
#show heading.where(level: 2): it => block(above: 1.2em, below: 0.7em, text(12pt, it.body))
#show outline.entry: set text(9pt)
#show link: set text(fill: rgb("#8a3210"))
#let note(body) = text(8pt, fill: luma(90), body)
#let caption(body) = block(sticky: true, below: 0.5em, text(10pt, weight: "bold", body))
#let picture(path, alt) = layout(size => {
  let own = image(path, alt: alt)
  if measure(own).width > size.width { image(path, alt: alt, width: 100%) } else { own }
})
#let fitted(body) = layout(size => {
  let own = measure(text(8pt, body)).width
  text(8pt * calc.max(0.75, calc.min(1, size.width / calc.max(own, 1pt))), body)
})
#let card(body) = block(width: 100%, breakable: false, inset: 8pt, radius: 3pt, stroke: 0.6pt + luma(170), body)
"""
_WITH_CONTENTS = 8  # sections, from which on a list of them helps
_UNBROKEN = 8  # rows: a longer table may go on on the next page, with its head

_LONG, _LONGEST = 24, 100  # letters of a cell that may be broken; beyond the second no column gets wider
_LONG_WORD = 25  # letters of a word that may be broken
_GOOD, _BAD = "#1b7837", "#a33b12"


def render_pdf(report: Report) -> tuple[bytes | None, str]:
    """Returns the document and an empty string; or None and why there is none."""
    try:
        import typst
    except ImportError:
        return None, "the package typst is not installed (pip install typst)"
    with tempfile.TemporaryDirectory() as scratch:
        for block in (block for section in report.sections for block in section.blocks):
            if isinstance(block, Figure):
                (Path(scratch) / f"{block.name}.svg").write_text(block.svg, encoding="utf-8")
        try:
            return compiled(lambda floating: _source(report, floating), Path(scratch)), ""
        except typst.TypstError as error:
            return None, f"typst: {' '.join(str(error).split())[:300]}"


def _source(report: Report, floating: AbstractSet[int]) -> str:
    """Returns the document as typst's text; the blocks of these numbers, which are pictures, float."""
    labels, numbers = report.labels, itertools.count()
    source = [f"{_PREAMBLE.replace('{title}', _text(report.title))}{MARK}"]
    source.append(
        f'#text(20pt, weight: "bold")[#{_text(report.title)}]\\\n#text(9pt, fill: luma(90))[#{_text(report.subtitle)}]\n'
    )
    for i, (part, sections) in enumerate(report.parts):
        if part:
            source.append(f"#pagebreak(weak: true)\n= #{_text(part)}\n")
        for j, section in enumerate(sections):
            source.append(f"{'==' if part else '='} #{_text(section.title)}\n")
            for block, number in zip(section.blocks, numbers, strict=False):
                source.append(_block(block, labels, number, floats=number in floating))
            if len(report.sections) >= _WITH_CONTENTS and i == j == 0:
                source.append('#outline(title: "Contents", depth: 2)\n')
    return "\n".join(source)


def figure_pdfs(figures: Iterable[Figure]) -> dict[str, bytes]:
    """Returns each picture alone as PDF, by its name, of those that typst takes; none without typst."""
    try:
        import typst
    except ImportError:
        return {}
    found: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for figure in figures:
            (Path(scratch) / "figure.svg").write_text(figure.svg, encoding="utf-8")
            main = Path(scratch) / "figure.typ"
            main.write_text(
                f"#set document(title: {_text(figure.title)}, date: none)\n"
                '#set page(width: auto, height: auto, margin: 0pt)\n#image("figure.svg")\n',
                encoding="utf-8",
            )
            with suppress(typst.TypstError):  # a picture of another package's that only a browser takes
                found[figure.name] = typst.compile(str(main), root=scratch)
    return found


def _block(block: Block, labels: Mapping[str, str], number: int, *, floats: bool) -> str:
    if isinstance(block, Table):
        return _table(block, labels)
    if isinstance(block, Figure):
        notes = "".join(f" #note[#{_text(note)}]\\\n" for note in block.notes)
        picture = f'align(center, picture("{block.name}.svg", {_text(block.alternative)}))'
        caption = f"#caption[#{_text(_caption(block))}]{_anchor(block)}"
        whole = f"[#mark({number})#set align(left)\n{caption}\n#{picture}\n{notes}#mark({number})]"
        return (
            f"#place(auto, float: true, block(width: 100%){whole})\n"
            if floats
            else f"#block(breakable: false){whole}\n"
        )
    if isinstance(block, Cards):
        columns = min(len(block.cards), 2)
        cards = "".join(map(_card, block.cards))
        return f"#block(width: 100%)[#grid(columns: (1fr,) * {columns}, gutter: 8pt,\n{cards})\n#mark(-1)]\n"
    return f"#block[#{_text(block.text)}#mark(-1)]\n"


def _caption(block: Table | Figure) -> str:
    return f"{block.label}. {block.title}" if block.label else block.title


def _anchor(block: Table | Figure) -> str:
    return f"#label({_text(block.name)})" if block.name else ""


def _card(card: Card) -> str:
    """Returns a network's card; where two stand side by side there is room for four short columns."""
    head = f"[], text(8pt)[#{_text(card.before)}], text(8pt)[#{_text(card.after)}], []"
    lines = ", ".join(_fact(fact) for fact in card.facts)
    return (
        f'card[#text(12pt, weight: "bold")[#{_text(card.title)}]\n'
        f"#text(9pt, table(columns: (1fr, auto, auto, auto), align: (left, right, right, left), stroke: none,"
        f" inset: (x: 3pt, y: 3pt), table.header({head}), table.hline(stroke: 0.4pt), {lines}))\n"
        f"#note[#{_text(card.where)}]],\n"
    )


def _fact(fact: Fact) -> str:
    colour = "luma(60)" if fact.better is None else f'rgb("{_GOOD if fact.better else _BAD}")'
    note = f"#linebreak()#note[#{_text(fact.note)}]" if fact.note else ""
    return (
        f"[#{_text(fact.name)}{note}], [#{_text(fact.before)}], [*#{_text(fact.after)}*],"
        f" text(fill: {colour})[#{_text(fact.change)}]"
    )


def _table(table: Table, labels: Mapping[str, str]) -> str:
    align = ", ".join("left" if i < table.numeric_from else "right" for i in range(len(table.columns)))
    widths = ", ".join(_widths(table))
    head = ", ".join(f"[*#{_text(column)}*]" for column in table.columns)
    if table.see:
        align, widths, head = f"{align}, left", f"{widths}, auto", f"{head}, [*See*]"
    wordy = table.numeric_from >= len(table.columns)
    rows = []
    for i, row in enumerate(table.rows):
        if i in table.breaks:
            rows.append("table.hline(stroke: 0.4pt + luma(160)),")
        cells = [f"[#{_text(breakable(cell, _LONG_WORD) if wordy else cell)}]" for cell in row]
        rows.append(", ".join([*cells, *_reference(table.see, i, labels)]) + ",")
    notes = "".join(f"#note[#{_text(note)}]\\\n" for note in table.notes)
    body = "\n".join(rows)
    return (
        f"#block(breakable: {'false' if len(table.rows) <= _UNBROKEN else 'true'})[#caption[#{_text(_caption(table))}]\n"
        f"#{'text(8pt, ' if wordy else 'fitted('}table(columns: ({widths}), align: ({align}), stroke: none, inset: (x: 0.42em,"
        f" y: 0.38em),\ntable.hline(stroke: 0.8pt), table.header({head}), table.hline(stroke: 0.4pt),\n"
        f"{body}\ntable.hline(stroke: 0.8pt)))\n"
        f"{notes}#mark(-1)]{_anchor(table)}\n"
    )


def _reference(see: Sequence[str], row: int, labels: Mapping[str, str]) -> list[str]:
    if not see:
        return []
    return [f"[#link(label({_text(see[row])}))[#{_text(labels[see[row]])}]]" if see[row] else "[]"]


def _widths(table: Table) -> list[str]:
    """Returns the widths of columns; in a table of words those with long cells share what the others leave, by the length of
    their longest."""
    count = len(table.columns)
    if count > 2 and table.numeric_from < count:
        return ["auto"] * count
    longest = [max(map(len, (table.columns[i], *(row[i] for row in table.rows)))) for i in range(count)]
    widths = [f"{min(length, _LONGEST)}fr" if length > _LONG else "auto" for length in longest]
    return widths if any(width != "auto" for width in widths) else [*widths[:-1], "1fr"]


def _text(text: str) -> str:
    """Returns a typst string literal: nothing in it is markup. Its escapes are those of JSON, but for control characters."""
    printable = "".join(c if c.isprintable() or c == BREAK else "\ufffd" for c in " ".join(text.split()))
    return json.dumps(printable, ensure_ascii=False)
