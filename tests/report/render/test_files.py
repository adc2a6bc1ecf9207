"""Tables and figures as files for a paper."""

from __future__ import annotations

import csv
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from revbench.report.document import Figure, Report, Section, Table
from revbench.report.numbering import numbered
from revbench.report.render.files import _latex, write_files
from revbench.report.render.html import render_html
from tests.report.reports import EVIL

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><rect width="5" height="5"/></svg>'


def test_each_has_its_files(tmp_path: Path) -> None:
    table = Table("What & why", ("Network", "Time"), [["a_b", "1.5 ×"], ["c", "50 %"]], breaks=[1])
    report = Report("", "", numbered([Section("A", [table, Figure("B", "b", SVG, "")])]))
    written = write_files(report, tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"figures/b.svg", "figures/b.pdf", "tables/what-why.csv", "tables/what-why.tex"}
    assert written == files
    assert re.findall('href="([^"#]+)"', render_html(report, files)) == [
        "tables/what-why.csv", "tables/what-why.tex", "figures/b.svg", "figures/b.pdf",
    ]  # fmt: skip
    assert (tmp_path / "figures" / "b.pdf").read_bytes().startswith(b"%PDF")
    with (tmp_path / "tables" / "what-why.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["Network", "Time"], ["a_b", "1.5 ×"], ["c", "50 %"]]
    lines = (tmp_path / "tables" / "what-why.tex").read_text().splitlines()
    assert lines[0] == r"\begin{longtable}{lr}"
    assert r"\caption{What \& why} \label{tab:what-why} \\" in lines
    at = lines.index(r"a\_b & 1.5 $\times$ \\")
    assert lines[at + 1 : at + 3] == [r"\midrule", r"c & 50 \% \\"]


def test_a_formula_is_no_formula(tmp_path: Path) -> None:
    cells = ["=cmd()", "+1", "-cmd", "-3.5 MiB", "@x", "a=1", "-2+3+cmd|' /C calc'!A0"]
    table = Table("T", ("=a", "b"), [[cell, "x, y"] for cell in cells], name="t")
    write_files(Report("", "", numbered([Section("A", [table])])), tmp_path)
    with (tmp_path / "tables" / "t.csv").open(newline="") as file:
        found = [row[0] for row in csv.reader(file)]
    assert found == ["'=a", "'=cmd()", "+1", "'-cmd", "-3.5 MiB", "'@x", "a=1", "'-2+3+cmd|' /C calc'!A0"]


@given(st.text(max_size=40) | st.just(EVIL))
def test_latex_has_no_command_that_a_cell_brings(text: str) -> None:
    (row,) = [
        line for line in _latex(Table("t", ("a", "b"), [[text, "end"]], name="t")).splitlines() if "& end" in line
    ]
    ours = {
        "textbackslash", "textbar", "textless", "textgreater", "textquotedbl", "textasciitilde", "textasciicircum", "dots",
        "times", "to", "varepsilon", "surd", "lceil", "rceil", "ge", "le", "pm", "circ", "cdot", "blacktriangle",
        "blacktriangledown", "mu",
    }  # fmt: skip
    assert set(re.findall(r"\\([A-Za-z]+)", row)) <= ours
    assert len(re.findall(r"(?<!\\)&", row)) == 1
    assert not re.search(r"(?<!\\)[%#]", row)


def test_a_row_that_begins_with_a_bracket_is_no_option_of_the_row_before() -> None:
    lines = _latex(Table("t", ("a", "b"), [["[1pt]", "x"], ["*", "|<>"]], name="t")).splitlines()
    assert "{}[1pt] & x \\\\" in lines
    assert "{}* & \\textbar{}\\textless{}\\textgreater{} \\\\" in lines


def test_a_picture_that_only_a_browser_takes_costs_its_own_pdf_alone(tmp_path: Path) -> None:
    """Of another package, or with a control character of a stranger's machine in it."""
    empty = '<svg xmlns="http://www.w3.org/2000/svg" width="0" height="0"/>'
    figures = [Figure("A", "a", empty, ""), Figure("B", "b", SVG, "")]
    write_files(Report("", "", numbered([Section("A", figures)])), tmp_path)
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["a.svg", "b.pdf", "b.svg"]
