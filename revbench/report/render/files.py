"""Tables and pictures as files of their own, for a paper: CSV and LaTeX, SVG and PDF, by their names in the report."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from revbench.report.document import Figure, Report, Table
from revbench.report.render.pdf import figure_pdfs
from revbench.results.files import own_folder, write_atomically

_MOST = 60  # letters of a cell, beyond which its column gets no wider
# What LaTeX's fonts have in mathematics only, or under another name.
_IN_MATHS = {
    "×": r"\times", "→": r"\to", "ε": r"\varepsilon", "√": r"\surd", "⌈": r"\lceil", "⌉": r"\rceil", "≥": r"\ge", "≤": r"\le",
    "±": r"\pm", "°": r"^\circ", "·": r"\cdot", "▲": r"\blacktriangle", "▼": r"\blacktriangledown", "µ": r"\mu",
}  # fmt: skip
# What they have under a word only.
_AS_WORDS = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}",
    "<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "–": "--", "…": r"\dots{}",
}  # fmt: skip


def write_files(report: Report, output: Path) -> set[str]:
    """Write each figure and table of a report that is not shortened into ``figures/`` and ``tables/``.

    Args:
        report: whose blocks have names.
        output: the folder of the report. Without typst there are no PDFs of figures.

    Returns:
        The names of the files, from this folder on.

    Raises:
        OSError: it can't be written.
    """
    blocks = [block for section in report.sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, Figure)]
    tables = [block for block in blocks if isinstance(block, Table)]
    pictures: dict[str, str | bytes] = {f"{figure.name}.svg": on_white(figure.svg) for figure in figures}
    pictures |= {f"{name}.pdf": pdf for name, pdf in figure_pdfs(figures).items()}
    numbers: dict[str, str | bytes] = {f"{table.name}.csv": _csv(table) for table in tables}
    numbers |= {f"{table.name}.tex": _latex(table) for table in tables}
    contents = {"figures": pictures, "tables": numbers}
    for name, files in contents.items():
        if files:
            folder = own_folder(output, name)
            for file, content in files.items():
                write_atomically(folder / file, content)
    return {f"{name}/{file}" for name, files in contents.items() for file in files}


def on_white(svg: str) -> str:
    """Returns a picture for a page that may be dark: it has no ground of its own, and its ink is dark."""
    return re.sub(r"(<svg\b[^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)


def _csv(table: Table) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_harmless, table.columns))
    writer.writerows(map(_harmless, row) for row in table.rows)
    return out.getvalue()


def _harmless(cell: str) -> str:
    """Returns a cell that no spreadsheet takes for a formula."""
    number = re.fullmatch(r"[+-]?\d[\d.,]*(e[+-]?\d+)?( ?[^\W\d_]+| ?[%×°])?", cell)
    return f"'{cell}" if re.match(r"[=+@\t\r-]", cell) and number is None else cell


def _latex(table: Table) -> str:
    """Returns a table for the packages booktabs, longtable, amssymb and fontenc (T1), with its caption and a label."""
    count = len(table.columns)
    aligned = "".join("l" if i < table.numeric_from else "r" for i in range(count))
    if table.numeric_from >= count:  # words, which have to break
        longest = [
            min(max(map(len, (head, *(row[i] for row in table.rows)))), _MOST) for i, head in enumerate(table.columns)
        ]
        aligned = "".join(rf"p{{{(1 - 0.03 * count) * length / sum(longest):.3f}\linewidth}}" for length in longest)
    cells = [
        [f"{'{}' if i == 0 and cell[:1] in ('[', '*') else ''}{_tex(cell)}" for i, cell in enumerate(row)]
        for row in table.rows
    ]
    frame = pd.DataFrame(cells, columns=[_tex(c) for c in table.columns])
    lines = frame.to_latex(
        index=False, escape=False, longtable=True, column_format=aligned, caption=_tex(table.title), label=f"tab:{table.name}"
    ).splitlines()  # fmt: skip
    return "\n".join(_with_rules(lines, table)) + "\n"


def _with_rules(lines: list[str], table: Table) -> Iterator[str]:
    """Yields the lines of a table, with a rule before each of its groups."""
    first = lines.index(r"\endlastfoot") + 1
    breaks = {first + at for at in table.breaks}
    for i, line in enumerate(lines):
        if i in breaks:
            yield r"\midrule"
        yield line


def _tex(text: str) -> str:
    """Returns text that LaTeX prints as it is."""
    escaped = {
        **_AS_WORDS, **{c: rf"\{c}" for c in "&%$#_{}"}, **{c: f"${tex}$" for c, tex in _IN_MATHS.items()},
    }  # fmt: skip
    return "".join(escaped.get(c, c if c.isprintable() else " ") for c in " ".join(text.split()))
