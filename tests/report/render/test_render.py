"""The three renderers: strangers' text stays text, and what one lacks is said."""

from __future__ import annotations

import re
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.report import write_report
from revbench.report.document import Figure, Paragraph, Report, Section, Table
from revbench.report.render.html import render_html
from revbench.report.render.markdown import render_markdown
from revbench.report.render.pdf import render_pdf
from tests.report.reports import EVIL, Page, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("reports") / "run")


def test_without_typst_there_is_a_word_and_no_pdf(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    written = write_report([run], tmp_path)
    assert not (tmp_path / "report.pdf").exists()
    assert any("typst" in note for note in written.notes)
    assert not list(tmp_path.glob("figures/*.pdf"))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    links = re.findall('href="([^"#]+)"', page)
    assert links
    assert all((tmp_path / link).is_file() for link in links)


@given(st.text(max_size=60))
def test_any_text_stays_text(text: str) -> None:
    report = Report(
        text, text, [Section(text, [Table(text, [text, "b"], [[text, text]], notes=[text]), Paragraph(text)])]
    )
    page = Page()
    page.feed(render_html(report))
    cells = (1, 3) if text else (2, 2)  # an empty head is no head
    assert (page.tags.count("td"), page.tags.count("th"), page.tags.count("script")) == (*cells, 1)
    assert not {"img", "b", "i", "iframe"} & set(page.tags)
    row = [line for line in render_markdown(report).splitlines() if line.startswith("|")][-1]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


@pytest.mark.parametrize("text", [EVIL, "\\u{41} \u2028 é 漢字", '"])#eval("1")', "\x00\x1b\ud800"])
def test_typst_takes_any_text(text: str) -> None:
    report = Report(
        text, text, [Section(text, [Table(text, [text, "b"], [[text, text]], notes=[text]), Paragraph(text)])]
    )
    pdf, problem = render_pdf(report)
    assert problem == ""
    assert pdf is not None


def test_a_picture_that_is_wider_than_the_page_is_made_to_fit() -> None:
    """Of another package, say: it is scaled down, and one that fits is as large as it is drawn."""

    def scale(width: int) -> float:
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="10pt"><rect width="9" height="9"/></svg>'
        pdf, problem = render_pdf(Report("t", "s", [Section("A", [Figure("f", "f", svg, "alt")])]))
        assert problem == ""
        assert pdf is not None
        drawn = b""
        for stream in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
            with suppress(zlib.error):
                drawn += zlib.decompress(stream)
        (found,) = {float(a) for a in re.findall(rb"q (\S+) 0 0 -\1 \S+ \S+ cm", drawn)} - {1.0}
        return found

    assert scale(300) == scale(500) == 0.75  # of CSS pixels, in which its numbers are
    assert 5000 * scale(5000) / 0.75 == pytest.approx((21 - 2 * 1.5) / 2.54 * 72, rel=1e-3)
