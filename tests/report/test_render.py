"""The report from rows alone: what it says, and that strangers' text stays text."""

from __future__ import annotations

import html.parser
import json
import re
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.case import Case
from revbench.compare import compare_folders
from revbench.errors import UserError
from revbench.report import write_report
from revbench.report.build import build_report
from revbench.report.document import MOST_FIGURES, Figure, Paragraph, Report, Section, Table
from revbench.report.long_tables import MOST_ROWS, shortened
from revbench.report.render.html import render_html
from revbench.report.render.markdown import render_markdown
from revbench.report.render.pdf import render_pdf
from revbench.results.journal import Journal
from tests.results.rows import ENVIRONMENT, make_row

EVIL = '<script>alert(1)</script> | `x` #panic() $ \\ "q" *b* _i_ ]'
BASE = Case(model="revnet-38", batch_size=16)


def timed(seconds: float) -> dict[str, Any]:
    return {
        "step_seconds": seconds, "forward_seconds": seconds / 3, "backward_seconds": seconds / 2,
        "optimizer_seconds": seconds / 6, "rounds": 3, "minor_faults_per_step": 2.0,
    }  # fmt: skip


def memory(activations: int) -> dict[str, Any]:
    phases = {f"{p}_peak_bytes": 1000 + activations for p in ("forward", "backward", "optimizer")}
    return {
        **phases,
        "peak_bytes": 1000 + activations,
        "steady_bytes": 1000,
        "activation_peak_bytes": activations,
        "rss_peak_bytes": 9000,
    }


def make_run(folder: Path) -> Path:
    journal = Journal(folder)
    journal.add_environment(ENVIRONMENT)
    stored, ours = BASE, BASE.replace(strategy="reconstructed")
    resnet = BASE.replace(model="resnet-32")
    for repeat, factor in ((1, 1.0), (2, 1.2), (3, 0.9)):
        for case, seconds in ((resnet, 0.3), (stored, 0.4), (ours, 0.6)):
            journal.add_row(make_row(case=case, repeat=repeat, metrics=timed(seconds * factor)))
    for case, activations, flops in ((resnet, 4 << 20, 3e9), (stored, 8 << 20, 3e9), (ours, 2 << 20, 4e9)):
        key = (case.id, "memory", 1, "")
        series = journal.add_series(
            key, {"operation": [1, 2, 3], "live_bytes": [5, 9, 3], "phase": ["forward", "backward", "optimizer"]}
        )
        journal.add_row(make_row(case=case, probe="memory", metrics=memory(activations), samples={}, series=series))
        counted = {"step_flops": flops, "forward_flops": 1e9, "backward_flops": flops - 1e9}
        journal.add_row(make_row(case=case, probe="flops", metrics=counted, samples={}))
    for case, angle in ((stored, 0.1), (ours, 0.2)):
        found = {"angle_degrees": [angle] * 5, "relative_error": [angle / 60] * 5}
        metrics = {
            "angle_degrees": angle,
            "relative_error": angle / 60,
            "draws": 5,
            "worst_tensor_angle_degrees": 1.5,
            "worst_tensor": "head.4.bias",
        }
        journal.add_row(make_row(case=case, probe="drift", metrics=metrics, samples=found))
    steps = {"batch_size": 16, "training_steps": 4, "data": "digits"}
    for case in (resnet, stored, ours, stored.replace(ulp=1)):
        trained = case.replace(**steps)
        columns: dict[str, list[Any]] = {
            "step": [1, 2, 3, 4], "loss": [2.0, 1.5, 1.2, 1.0], "error": [0.9, 0.8, 0.7, 0.6],
            "validation_error": [None, 0.8, None, 0.55], "validation_loss": [None, 1.6, None, 1.1],
            "learning_rate": [0.1] * 4, "step_seconds": [0.1] * 4,
        }  # fmt: skip
        series = journal.add_series((trained.id, "training", 1, ""), columns)
        ended = {
            "train_loss": 1.0, "train_error": 0.6, "validation_error": 0.55, "validation_loss": 1.1, "step_seconds": 0.1,
            "train_images": 1438, "train_images_available": 1438, "validation_images": 359,
        }  # fmt: skip
        journal.add_row(make_row(case=trained, probe="training", metrics=ended, samples={}, series=series))
    for name, count in (("revnet-38", 464_890), ("revnet-104", 45_428_072)):
        journal.add_row(
            make_row(case=Case(model=name, batch_size=1), probe="parameters", metrics={"parameters": count}, samples={})
        )
    evil = Case(model=f"{EVIL}:{EVIL}", batch_size=1)
    journal.add_row(make_row(case=evil, status="crashed", metrics={}, samples={}, message=EVIL))
    journal.close()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("reports") / "run")


def tables(report: Report) -> dict[str, Table]:
    return {b.title: b for s in report.sections for b in s.blocks if isinstance(b, Table)}


def test_the_sentence_says_what_the_rows_say(run: Path) -> None:
    report = build_report([run])
    sentence, training = [b.text for b in report.sections[0].blocks if isinstance(b, Paragraph)]
    assert "2.0 MiB" in sentence
    assert "8.0 MiB (4.0 × less)" in sentence
    assert "1.50 × the time" in sentence
    assert "1.33 × the floating-point operations" in sentence
    assert "0.200° from the float64 one (stored: 0.100°)" in sentence
    assert training.startswith("RevNet-38, trained for")


def test_time_is_the_median_over_launches_with_its_spread(run: Path) -> None:
    rows = {(r[0], r[1]): r for r in tables(build_report([run]))["Time and computation of a training step"].rows}
    assert rows["RevNet-38", "reconstructed"][2] == "600 ms (540 ms to 720 ms)"
    assert rows["RevNet-38", "reconstructed"][3] == "1.50 ×"
    assert rows["ResNet-32", "stored"][3] == "1.00 ×"
    assert rows["RevNet-38", "stored"][8] == "1.00 ×"


def test_table_two_shows_both_counts(run: Path) -> None:
    rows = {r[0]: r for r in tables(build_report([run]))["Networks and parameters (Table 2)"].rows}
    assert rows["RevNet-104"][5:] == ["45,428,072", "45.2"]
    assert rows["RevNet-38"][5:] == ["464,890 / –", "0.46 / 0.48"]
    assert rows["ResNet-50"][5:] == ["–", "–"]


def test_few_draws_are_confessed(run: Path) -> None:
    notes = " ".join(tables(build_report([run]))["Angle and error of the gradient, against float64"].notes)
    assert "over 5 draws" in notes
    assert "Fewer than 30" in notes


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]


def test_files(run: Path) -> None:
    written = write_report([run], run)
    assert [p.name for p in written.paths] == ["report.html", "report.pdf", "report.md", "benchmark.json"]
    assert written.notes == []
    text = (run / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3
    assert all(link.startswith("#") for link in page.links)  # opens offline
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
    """Rendered twice, in another place: the same bytes."""
    first = render_html(build_report([run]))
    moved = make_run(tmp_path / "run")
    assert render_html(build_report([moved])) == first


def test_without_typst_there_is_a_word_and_no_pdf(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    written = write_report([run], tmp_path)
    assert not (tmp_path / "report.pdf").exists()
    assert any("typst" in note for note in written.notes)
    assert (tmp_path / "report.html").is_file()


@given(st.text(max_size=60))
def test_any_text_stays_text(text: str) -> None:
    report = Report(
        text, text, [Section(text, [Table(text, [text, "b"], [[text, text]], notes=[text]), Paragraph(text)])]
    )
    page = Page()
    page.feed(render_html(report))
    assert page.tags.count("td") == 2
    assert not {"script", "img", "b", "a"} & (set(page.tags) - {"a"})
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
    journal = Journal(tmp_path / "run")
    journal.add_environment(ENVIRONMENT)
    columns: dict[str, list[Any]] = {"operation": [1], "live_bytes": [5], "phase": ["forward"]}
    for model in ("../../../../escaped/x", 'q"uote)(', "$\\frac{", "x" * 400):
        case = Case(model=model, batch_size=1)
        series = journal.add_series((case.id, "memory", 1, ""), columns)
        journal.add_row(make_row(case=case, probe="memory", metrics=memory(0), samples={}, series=series))
    journal.close()
    written = write_report([tmp_path / "run"], tmp_path / "out")
    assert written.notes == []
    assert sorted(p.name for p in (tmp_path / "out" / "figures").iterdir()) == [f"{i}-memory.svg" for i in range(1, 5)]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "run"]


def test_the_strategies_of_a_users_network_are_drawn(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    columns: dict[str, list[Any]] = {"operation": [1], "live_bytes": [5], "phase": ["forward"]}
    for strategy, nonreversible in (("stored", "kept"), ("reconstructed", "kept"), ("checkpointed", "recomputed")):
        case = Case(model="resnets.mine:make", strategy=strategy, nonreversible=nonreversible)
        series = journal.add_series((case.id, "memory", 1, ""), columns)
        journal.add_row(make_row(case=case, probe="memory", metrics=memory(7), samples={}, series=series))
    journal.close()
    (figure,) = [b for s in build_report([tmp_path]).sections for b in s.blocks if isinstance(b, Figure)]
    assert all(word in figure.alternative for word in ("stored", "reconstructed", "checkpointed, rest recomputed"))


def test_an_angle_that_is_not_a_number_is_not_shown_as_a_good_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    metrics = {
        "draws": 3,
        "angle_degrees": None,
        "relative_error": None,
        "worst_tensor_angle_degrees": None,
        "worst_tensor": "w",
    }
    journal.add_row(make_row(probe="drift", metrics=metrics, samples={"angle_degrees": [0.1], "relative_error": [0.1]}))
    journal.close()
    (row,) = tables(build_report([tmp_path]))["Angle and error of the gradient, against float64"].rows
    assert row[2:] == ["–"] * 6


def test_two_environments_are_never_in_one_figure(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    journal = Journal(run, resume=True)
    journal.add_environment({**ENVIRONMENT, "environment_id": "other"})
    journal.add_row(make_row(case=BASE, environment_id="other", repeat=9, metrics=timed(100.0)))
    journal.close()
    report = build_report([run])
    found = [
        row[2] for s in report.sections for b in s.blocks
        if isinstance(b, Table) and b.title.startswith("Time") for row in b.rows if row[:2] == ["RevNet-38", "stored"]
    ]  # fmt: skip
    assert found == ["400 ms (360 ms to 480 ms)", "100 s"]


def test_a_run_of_many_cases_has_the_first_figures_and_whole_tables_beside_it(tmp_path: Path) -> None:
    """Its page does not grow with it."""
    folder = tmp_path / "run"
    journal = Journal(folder)
    journal.add_environment(ENVIRONMENT)
    strategies = ("stored", "reconstructed", "checkpointed")
    cases = [BASE.replace(batch_size=batch, strategy=name) for batch in range(1, 151) for name in strategies]
    levels = {**memory(1 << 20), "live_bytes_at_rss_peak": 1 << 20, "allocated_bytes_at_rss_peak": 2 << 20}
    name = journal.add_series(
        (BASE.id, "memory", 1, ""), {"operation": [1, 2], "live_bytes": [5, 9], "phase": ["forward", "backward"]}
    )
    draws = {"angle_degrees": [0.1, 0.2], "relative_error": [1e-3, 2e-3]}
    rows = [make_row(case=case, metrics=timed(0.1 + case.batch_size)) for case in cases]
    rows += [make_row(case=case, probe="memory", metrics=levels, samples={}, series=name) for case in cases]
    rows += [
        make_row(case=case, probe="drift", metrics={"angle_degrees": 0.1, "draws": 2}, samples=draws) for case in cases
    ]
    journal.add_rows(rows)
    journal.close()
    written = write_report([folder], folder)
    assert (folder / "report.pdf") in written.paths
    assert len(list((folder / "figures").iterdir())) <= 4 * MOST_FIGURES
    assert (folder / "report.html").stat().st_size < 2 << 20
    page = (folder / "report.md").read_text()
    assert "These are the first 8 of such figures; the tables have all cases." in page
    assert f"The first {MOST_ROWS} of 450 rows; all of them are in tables/" in page
    whole = {path.name: path.read_text().splitlines() for path in (folder / "tables").iterdir()}
    assert whole
    assert all(len(lines) == 451 for lines in whole.values()), {name: len(lines) for name, lines in whole.items()}


@pytest.mark.slow
def test_a_row_of_very_many_draws_takes_little_memory(tmp_path: Path) -> None:
    """100,000 draws of 30 quantities are 24 MB of numbers."""
    count = 100_000
    draws = [1 + i % 977 / 977 for i in range(count)]
    metrics = {"angle_degrees": 1.0, "relative_error": 1e-3, "draws": count}
    names = (
        "angle_degrees",
        "relative_error",
        "smooth_amplification",
        "significant_digits",
        *(f"other_{i}" for i in range(26)),
    )
    case = BASE.replace(strategy="reconstructed")
    journal = Journal(tmp_path / "run")
    journal.add_environment(ENVIRONMENT)
    journal.add_row(make_row(case=case, probe="drift", metrics=metrics, samples=dict.fromkeys(names, draws)))
    journal.close()
    tracemalloc.start()
    write_report([tmp_path / "run"], tmp_path / "report")
    compare_folders(tmp_path / "run", tmp_path / "run")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 << 20


def test_cells_of_a_table_are_no_formulas() -> None:
    cells = ["=cmd()", "+1", "-cmd", "-3.5 MiB", "@x", "a=1", "-2+3+cmd|' /C calc'!A0"]
    table = Table("A table", ["=a", "b"], [[cell, "x, y"] for cell in cells] * 30, 1)
    report, files = shortened(Report("", "", [Section("", [table])]))
    (block,) = report.sections[0].blocks
    assert isinstance(block, Table)
    assert len(block.rows) == MOST_ROWS
    (text,) = files.values()
    lines = text.splitlines()
    assert lines[0] == "'=a,b"
    assert [line.partition(",")[0] for line in lines[1:8]] == [
        "'=cmd()",
        "+1",
        "'-cmd",
        "-3.5 MiB",
        "'@x",
        "a=1",
        "'-2+3+cmd|' /C calc'!A0",
    ]
    assert len(lines) == 1 + 210


def test_chains_have_a_table_and_a_plane_of_their_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add_environment(ENVIRONMENT)
    stored = Case(model="revbench.peers:chain(library=revbench,kind=basic,blocks=4)", batch_size=4)
    peer = stored.replace(model="revbench.peers:chain(library=memcnn,kind=basic,blocks=4)", strategy="reconstructed")
    unwatched = stored.replace(model=stored.model.replace(")", ",tripwire=False)"), strategy="reconstructed")
    cases = {
        stored: (8, 1.0), stored.replace(strategy="reconstructed"): (1, 1.3), peer: (3, 1.7),
        stored.replace(strategy="torch_checkpoint"): (2, 1.4),
        stored.replace(strategy="reconstructed", compile=True): (1, 1.2),
        unwatched: (1, 1.29),
    }  # fmt: skip
    for case, (mib, seconds) in cases.items():
        found: dict[str, Any] = {**memory(mib << 20), "allocated_activation_peak_bytes": mib << 20}
        if case.compile:
            found |= {"activation_peak_bytes": None, "activation_peak_bytes_reason": "compiled"}
        journal.add_row(make_row(case=case, probe="memory", metrics=found, samples={}))
        for repeat, factor in ((1, 1.0), (2, 10.0)):  # the ratio is taken launch by launch
            metrics = timed(seconds * factor)
            journal.add_row(make_row(case=case, probe="time_interleaved", repeat=repeat, metrics=metrics))
    journal.add_row(make_row(case=peer, probe="flops", status="crashed", metrics={}, samples={}, message="no"))
    journal.close()
    report = build_report([tmp_path])
    (section,) = [s for s in report.sections if s.title == "Libraries and PyTorch's own ways"]
    figure, table = section.blocks
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    by_way = {row[1]: row for row in table.rows}
    assert by_way["memcnn"][4] == "0.38 ×"
    assert by_way["memcnn"][6] == "1.70 × (1.70 to 1.70)"
    assert by_way["memcnn"][7] == "crashed"
    assert by_way["reconstructed"][6] == "1.30 × (1.30 to 1.30)"
    assert by_way["reconstructed, no tripwire"][6] == "1.29 × (1.29 to 1.29)"
    assert by_way["reconstructed, compiled"][2:5] == ["–", "1.0 MiB", "0.12 ×"]
    assert "torch_checkpoint 0.25, 1.40" in figure.alternative
    assert not any(s.title in ("Memory", "Time and computation") for s in report.sections)


def rows_of(folder: Path, *rows: Any) -> Report:
    journal = Journal(folder)
    journal.add_environment(ENVIRONMENT)
    for row in rows:
        journal.add_row(row)
    journal.close()
    return build_report([folder])


def test_a_failure_of_every_launch_is_one_line(tmp_path: Path) -> None:
    rows = [make_row(repeat=i, status="crashed", metrics={}, samples={}, message="boom") for i in (1, 2, 3)]
    (row,) = tables(rows_of(tmp_path / "run", *rows))["Cases without figures"].rows
    assert row == ["time", rows[0].case.id, "1, 2, 3", "crashed", "boom"]
