"""The how-to of probes and sections of one's own, followed word for word in a package that is installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import revbench
from revbench.report import write_report
from revbench.results.runs import read_run
from tests.how_to.following import Follower


def made(section: str) -> str:
    """The source of a section."""
    return (
        "from revbench.report import Figure, Paragraph, Section, Table\n\n"
        f"def section(evidence):\n    return {section}\n"
    )


@pytest.fixture(scope="module")
def follower(tmp_path_factory: pytest.TempPathFactory) -> Follower:
    """Somebody who has followed both pages."""
    follower = Follower(tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site"))
    for page in ("add-a-probe", "add-a-section"):
        follower.follow(page)
    return follower


@pytest.fixture(scope="module")
def site(follower: Follower) -> Path:
    """A folder with the package of the how-to installed."""
    return follower.site


@pytest.fixture(scope="module")
def ran(follower: Follower) -> tuple[Path, str]:
    """The run folder and what the terminal showed."""
    listed_and_ran, _ = (said for said in follower.said if said)
    return follower.folder / "run", listed_and_ran


def test_it_is_measured_like_any_other(ran: tuple[Path, str]) -> None:
    folder, shown = ran
    rows = read_run(folder).rows
    assert {row.metrics["gradient_numbers"] for row in rows} == {464_890}
    assert all(0 <= row.number("zero_share") < 0.5 for row in rows)  # type: ignore[operator]
    assert re.search(r"sparsity +revnet-38 stored .* \d+\.\d% of 464,890 numbers are zero", shown)
    frame = revbench.load_runs(folder)
    assert list(frame.zero_share) == [row.metrics["zero_share"] for row in rows]


def test_the_report_has_its_table_and_its_section(ran: tuple[Path, str]) -> None:
    text = (ran[0] / "report.md").read_text()
    assert "## Other measurements" in text
    assert (
        "The probe sparsity of the package gradient-sparsity: the share of the gradient's numbers that are zero."
        in text
    )
    assert re.search(r"\| RevNet-38 \| stored \| .* \| \d+\.\d% \| 464,890 \|", text)
    assert re.search(r"## Sparsity\n\nOf the gradient of revnet-38, \d+\.\d% is zero\.", text)


def test_where_it_is_not_installed_its_rows_are_shown_as_they_are(ran: tuple[Path, str], tmp_path: Path) -> None:
    write_report([ran[0]], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "The probe sparsity is not installed here" in text
    assert "464890" in text or "4.65e+05" in text
    assert "## Sparsity" not in text


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("def section(evidence):\n    raise KeyError('x')", "KeyError"),
        ("import sys\nsys.exit(3)", "SystemExit"),
        ("def section(evidence):\n    return 'words'", "returned a str, not a revbench.report.Section"),
        (made("Section('A', ['words'])"), "a block is a str, not a Paragraph, Table, Figure or Cards"),
        (made("Section('A', None)"), "TypeError"),
        (made("Section(None, [])"), "the title of the section has a NoneType where a string belongs"),
        (made("Section('A', [Paragraph(3)])"), "a paragraph has a int where a string belongs: 3"),
        (made("Section('A', [Table('T', ['a', 'b'], [['x', 1]])])"), "table 'T' has a int where a string belongs"),
        (made("Section('A', [Table('T', ['a', 'b'], [['x']])])"), "table 'T' has 2 columns and a row of 1 cells"),
        (made("Section('A', [Table('T', ['a'], [['x']], breaks=['x'])])"), "numeric_from and breaks are indices"),
        (made("Section('A', [Figure('F', '../x', '<svg/>', 'f')])"), "a figure can't be called '../x'"),
        (made("Section('A', [Figure('F', 'x', '<p/>', 'f')])"), "figure 'x' is no SVG"),
        (made("Section('A', [Figure('F', 'x', '<svg>', 'f')])"), "ParseError"),
    ],
)
def test_a_section_that_can_not_be_had_is_one_line(
    ran: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, word: str
) -> None:
    info = tmp_path / "site" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[revbench.report_sections]\nbroken = broken_section:section\n")
    (tmp_path / "site" / "broken_section.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "broken_section", raising=False)
    written = write_report([ran[0]], tmp_path / "report")
    (note,) = (note for note in written.notes if "broken" in note)
    assert note.startswith("package broken brings a report section that can't be had: ")
    assert word in note
    assert "Where it was measured" in (tmp_path / "report" / "report.md").read_text()
