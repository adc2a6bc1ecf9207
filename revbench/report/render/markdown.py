"""A Report as Markdown: for a job summary, a pull request or a README."""

from __future__ import annotations

from revbench.report.document import Block, Figure, Report, Section, Table
from revbench.terminal import markdown


def render_markdown(report: Report) -> str:
    """Returns the text; pictures are links to the files in ``figures/``."""
    lines = [f"# {markdown(report.title)}", "", markdown(report.subtitle), ""]
    for part, sections in report.parts:
        if part:
            lines += [f"## {markdown(part)}", ""]
        for section in sections:
            lines += section_lines(section, level=3 if part else 2)
    return "\n".join(lines)


def section_lines(section: Section, *, level: int) -> list[str]:
    """Returns the lines of a section under a heading of this level."""
    return [
        f"{'#' * level} {markdown(section.title)}",
        "",
        *(line for b in section.blocks for line in (*_block(b), "")),
    ]


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        rule = [":--" if i < block.numeric_from else "--:" for i in range(len(block.columns))]
        lines = [f"**{markdown(block.title)}**", "", _row(block.columns), "| " + " | ".join(rule) + " |"]
        lines += [_row(row) for row in block.rows]
        return [*lines, *(line for note in block.notes for line in ("", f"<sub>{markdown(note)}</sub>"))]
    if isinstance(block, Figure):
        lines = [f"**{markdown(block.title)}**", "", f"![{markdown(block.alternative)}](figures/{block.name}.svg)"]
        return [*lines, *(line for note in block.notes for line in ("", f"<sub>{markdown(note)}</sub>"))]
    return [markdown(block.text)]


def _row(cells: object) -> str:
    assert isinstance(cells, (list, tuple))
    return "| " + " | ".join(markdown(cell) for cell in cells) + " |"
