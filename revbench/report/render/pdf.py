"""A Report as PDF, through typst."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from revbench.report.document import Block, Figure, Report, Table

_PREAMBLE = """
#set document(title: {title})
#set page(paper: "a4", margin: (x: 1.5cm, y: 1.6cm),
  footer: context align(right, text(8pt, fill: luma(110))[revbench #h(1em) #counter(page).display("1 / 1", both: true)]))
#set text(font: "Libertinus Serif", size: 10pt)
#set par(leading: 0.55em)
#show heading.where(level: 1): it => block(above: 1.4em, below: 0.8em, text(14pt, it.body))
#show heading.where(level: 2): it => block(above: 1.2em, below: 0.7em, text(12pt, it.body))
#let note(body) = text(8pt, fill: luma(90), body)
#let caption(body) = text(10pt, weight: "bold", body)
"""

_LONG, _LONGEST = 24, 100  # letters of a cell that may be broken; beyond the second no column gets wider


def render_pdf(report: Report) -> tuple[bytes | None, str]:
    """Returns the document and an empty string; or None and why there is none."""
    try:
        import typst
    except ImportError:
        return None, "the package typst is not installed (pip install typst)"
    source = [_PREAMBLE.replace("{title}", _text(report.title))]
    source.append(
        f'#text(20pt, weight: "bold")[#{_text(report.title)}]\\\n#text(9pt, fill: luma(90))[#{_text(report.subtitle)}]\n'
    )
    with tempfile.TemporaryDirectory() as scratch:
        for part, sections in report.parts:
            if part:
                source.append(f"#pagebreak(weak: true)\n= #{_text(part)}\n")
            for section in sections:
                source.append(f"{'==' if part else '='} #{_text(section.title)}\n")
                source += [_block(block, Path(scratch)) for block in section.blocks]
        main = Path(scratch) / "report.typ"
        main.write_text("\n".join(source), encoding="utf-8")
        try:
            pdf: bytes = typst.compile(str(main), root=scratch)
        except typst.TypstError as error:
            return None, f"typst: {' '.join(str(error).split())[:300]}"
    return pdf, ""


def _block(block: Block, folder: Path) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Figure):
        (folder / f"{block.name}.svg").write_text(block.svg, encoding="utf-8")
        notes = "".join(f" #note[#{_text(note)}]\\\n" for note in block.notes)
        picture = f'image("{block.name}.svg", width: 92%, alt: {_text(block.alternative)})'
        return f"#block(breakable: false)[#caption[#{_text(block.title)}]\\\n#align(center, {picture})\n{notes}]\n"
    return f"#{_text(block.text)}\n\n"


def _table(table: Table) -> str:
    align = ", ".join("left" if i < table.numeric_from else "right" for i in range(len(table.columns)))
    widths = ", ".join(_widths(table))
    head = ", ".join(f"[*#{_text(column)}*]" for column in table.columns)
    rows = []
    for i, row in enumerate(table.rows):
        if i in table.breaks:
            rows.append("table.hline(stroke: 0.4pt + luma(160)),")
        rows.append(", ".join(f"[#{_text(cell)}]" for cell in row) + ",")
    notes = "".join(f"#note[#{_text(note)}]\\\n" for note in table.notes)
    body = "\n".join(rows)
    return (
        f"#block(breakable: {'false' if len(table.rows) < 30 else 'true'})[#caption[#{_text(table.title)}]\n"
        f"#text(8pt, table(columns: ({widths}), align: ({align}), stroke: none, inset: (x: 3.4pt, y: 3pt),\n"
        f"table.hline(stroke: 0.8pt), table.header({head}), table.hline(stroke: 0.4pt),\n{body}\ntable.hline(stroke: 0.8pt)))\n"
        f"{notes}]\n"
    )


def _widths(table: Table) -> list[str]:
    """Returns the widths of columns; in a table of words those with long cells share what the others leave, by the length of
    their longest."""
    count = len(table.columns)
    if count > 2 and table.numeric_from < count:
        return ["auto"] * count
    longest = [max((len(row[i]) for row in table.rows), default=0) for i in range(count)]
    widths = [f"{min(length, _LONGEST)}fr" if length > _LONG else "auto" for length in longest]
    return widths if any(width != "auto" for width in widths) else [*widths[:-1], "1fr"]


def _text(text: str) -> str:
    """Returns a typst string literal: nothing in it is markup. Its escapes are those of JSON, but for control characters."""
    printable = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
    return json.dumps(printable, ensure_ascii=False)
