"""What short sections say of the rows: the sentence, times, networks, failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from revbench.report.build import build_report
from revbench.report.document import Paragraph
from tests.report.reports import make_run, report_of, tables
from tests.results.rows import make_row


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("reports") / "run")


def test_a_training_of_few_steps_is_no_headline(run: Path) -> None:
    report = build_report([run])
    assert not any("trained" in b.text for b in report.sections[0].blocks if isinstance(b, Paragraph))
    (training,) = [s for s in report.sections if s.title == "Training on real data"]
    said = next(b.text for b in training.blocks if isinstance(b, Paragraph))
    assert said == (
        "RevNet-38 was trained for 4 steps on digits, too few to compare where the strategies end: that takes 100 steps"
        " and 5 seeds."
    )


def test_time_is_the_median_over_launches_with_its_spread(run: Path) -> None:
    rows = {(r[0], r[1]): r for r in tables(build_report([run]))["Time and computation of a training step"].rows}
    assert rows["RevNet-38", "reconstructed"][2] == "600 ms (540 to 720 ms)"
    assert rows["RevNet-38", "reconstructed"][3] == "1.50 ×"
    assert rows["ResNet-32", "stored"][3] == "1.00 ×"
    assert rows["RevNet-38", "stored"][8] == "1.00 ×"


def test_table_two_shows_both_counts(run: Path) -> None:
    rows = {r[0]: r for r in tables(build_report([run]))["Networks and parameters (the paper's Table 2)"].rows}
    assert rows["RevNet-104"][5:] == ["45,428,072", "45.2"]
    assert rows["RevNet-38"][5:] == ["464,890 / –", "0.46 / 0.48"]
    assert rows["ResNet-50"][5:] == ["–", "–"]


def test_few_draws_are_confessed(run: Path) -> None:
    notes = " ".join(tables(build_report([run]))["Angle and error of the gradient, against float64"].notes)
    assert "over 5 draws" in notes
    assert "Fewer than 30" in notes


def test_an_angle_that_is_not_a_number_is_not_shown_as_a_good_one(tmp_path: Path) -> None:
    unknown = dict.fromkeys(("angle_degrees", "relative_error", "worst_tensor_angle_degrees"))
    one = make_row(
        probe="drift", metrics={"draws": 3, "worst_tensor": "w", **unknown},
        samples={"angle_degrees": [0.1], "relative_error": [0.1]},
    )  # fmt: skip
    (row,) = tables(report_of(tmp_path, one))["Angle and error of the gradient, against float64"].rows
    assert row[2:] == ["–"] * 6


def test_a_failure_of_every_launch_is_one_line(tmp_path: Path) -> None:
    rows = [make_row(repeat=i, status="crashed", metrics={}, samples={}, message="boom") for i in (1, 2, 3)]
    (row,) = tables(report_of(tmp_path / "run", *rows))["Each probe and case without a value, and why"].rows
    assert row == ["time", rows[0].case.id, "1, 2, 3", "crashed", "boom"]
