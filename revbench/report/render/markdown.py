"""A Report as Markdown: for a job summary, a pull request or a README."""

from __future__ import annotations

import html
import re

from revbench.report.document import Block, Figure, Report, Table


def render_markdown(report: Report) -> str:
    """Returns the text; pictures are links to the files in ``figures/``."""
    lines = [f"# {_text(report.title)}", "", _text(report.subtitle), ""]
    for part, sections in report.parts:
        if part:
            lines += [f"## {_text(part)}", ""]
        for section in sections:
            lines += [f"{'###' if part else '##'} {_text(section.title)}", ""]
            for block in section.blocks:
                lines += [*_block(block), ""]
    return "\n".join(lines)


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        rule = [":--" if i < block.numeric_from else "--:" for i in range(len(block.columns))]
        lines = [f"**{_text(block.title)}**", "", _row(block.columns), "| " + " | ".join(rule) + " |"]
        lines += [_row(row) for row in block.rows]
        return [*lines, *(line for note in block.notes for line in ("", f"<sub>{_text(note)}</sub>"))]
    if isinstance(block, Figure):
        lines = [f"**{_text(block.title)}**", "", f"![{_text(block.alternative)}](figures/{block.name}.svg)"]
        return [*lines, *(line for note in block.notes for line in ("", f"<sub>{_text(note)}</sub>"))]
    return [_text(block.text)]


def _row(cells: object) -> str:
    assert isinstance(cells, (list, tuple))
    return "| " + " | ".join(_text(cell) for cell in cells) + " |"


def _text(text: str) -> str:
    """Returns plain text as Markdown: nothing in it is markup, HTML or the end of a cell."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escaped)
