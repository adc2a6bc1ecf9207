"""The files of a report: from rows alone, in one part for each machine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.report import write_report
from revbench.report.build import build_report
from revbench.report.document import Table
from revbench.results.journal import Journal
from tests.report.reports import BASE, Page, make_run, memory, timed
from tests.results.rows import ENVIRONMENT, Columns, make_row, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("reports") / "run")


def test_files(run: Path) -> None:
    written = write_report([run], run)
    assert [p.name for p in written.paths] == ["report.html", "report.pdf", "report.md", "benchmark.json"]
    assert written.notes == []
    text = (run / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("script") == 1
    assert page.tags.count("svg") == 5
    beside = [link for link in page.links if not link.startswith("#")]  # opens offline
    assert beside
    assert all((run / link).is_file() for link in beside)
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    assert (run / "report.pdf").read_bytes().startswith(b"%PDF")
    markdown = (run / "report.md").read_text()
    for name in re.findall(r"\(figures/([^)]+)\)", markdown):
        assert (run / "figures" / name).read_text().startswith("<svg")
    assert "<script>" not in markdown
    widths = {line.count(" | ") for line in markdown.splitlines() if line.startswith("| RevNet-38 | recon")}
    assert widths
    assert json.loads((run / "benchmark.json").read_text())["benchmarks"]


def test_the_report_is_made_of_the_rows_alone(run: Path, tmp_path: Path) -> None:
    """Rendered twice, of a run that lies in another place: the same bytes, in each of its files."""

    def files(report: Path) -> dict[str, bytes]:
        return {str(path.relative_to(report)): path.read_bytes() for path in report.rglob("*") if path.is_file()}

    write_report([run], tmp_path / "first")
    write_report([make_run(tmp_path / "run")], tmp_path / "second")
    found = files(tmp_path / "first")
    assert {"report.html", "report.md", "report.pdf", "figures/time-against-memory.pdf"} <= found.keys()
    assert files(tmp_path / "second") == found


@pytest.mark.parametrize("status", ["ok", "oom"])
def test_one_row_and_failed_rows_alone_are_a_report(tmp_path: Path, status: str) -> None:
    metrics = timed(0.1) if status == "ok" else {}
    samples = {"step_seconds": [0.1]} if status == "ok" else {}
    folder = write_run(
        tmp_path / "run", make_row(case=BASE, status=status, metrics=metrics, samples=samples, message="why")
    )
    written = write_report([folder], folder)
    assert written.notes == []
    assert all(path.is_file() for path in written.paths)
    assert ("What could not be measured" in (folder / "report.md").read_text()) == (status == "oom")


def test_runs_without_rows_or_environment(tmp_path: Path) -> None:
    Journal(tmp_path / "empty").close()
    with pytest.raises(UserError, match="no rows"):
        build_report([tmp_path / "empty"])
    journal = Journal(tmp_path / "lost")
    journal.add_row(make_row())
    journal.close()
    with pytest.raises(UserError, match="environment"):
        build_report([tmp_path / "lost"])


def test_a_strangers_model_name_names_no_file(tmp_path: Path) -> None:
    columns: Columns = {"operation": [1], "live_bytes": [5], "phase": ["forward"]}
    cases = [Case(model=m, batch_size=1) for m in ("../../../../escaped/x", 'q"uote)(', "$\\frac{", "x" * 400)]
    rows = [make_row(case=case, probe="memory", metrics=memory(0), samples={}) for case in cases]
    run = write_run(tmp_path / "run", *((row, columns) for row in rows))
    written = write_report([run], tmp_path / "out")
    assert written.notes == []
    names = ["memory-escaped-x", "memory-frac", "memory-q-uote", f"memory-{'x' * 53}"]
    found = sorted(p.name for p in (tmp_path / "out" / "figures").iterdir())
    assert found == sorted(f"{name}.{ending}" for name in names for ending in ("svg", "pdf"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_two_unlike_machines_are_never_in_one_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    journal = Journal(run, resume=True)
    journal.add_environment(
        {**ENVIRONMENT, "environment_id": "other", "cpu": {**ENVIRONMENT["cpu"], "capability": "AVX512"}}
    )
    journal.add_row(make_row(case=BASE, environment_id="other", repeat=9, metrics=timed(100.0)))
    journal.close()
    report = build_report([run])
    found = [
        row[2] for s in report.sections for b in s.blocks
        if isinstance(b, Table) and b.title.startswith("Time and") for row in b.rows if row[:2] == ["RevNet-38", "stored"]
    ]  # fmt: skip
    assert found == ["400 ms (360 to 480 ms)", "100 s"]
