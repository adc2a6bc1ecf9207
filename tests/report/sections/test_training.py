"""What the report says of trainings, from rows that say what is wanted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from revbench.case import Case
from revbench.report.charts.training import running_means
from revbench.report.document import Paragraph, Report
from revbench.report.sections.training import MARGIN, equivalence
from revbench.training.series_file import COLUMNS, SeriesFile
from tests.report.reports import figures, report_of, tables
from tests.results.rows import make_row

BASE = Case(model="revnet-38", batch_size=8, data="CIFAR-10 (JPEG)", training_steps=600)


def trained(folder: Path, cases: dict[Case, float], *, drift: bool = False) -> Report:
    rows = []
    for number, (case, error) in enumerate(cases.items()):
        name = f"training-{number}.jsonl"
        with SeriesFile(folder / "series" / name) as series:
            for step in range(6):
                line: dict[str, Any] = {
                    "step": step + 1, "loss": 2.0 - 0.1 * step, "error": 0.9 - 0.05 * step, "learning_rate": 0.1,
                    "validation_error": error if step == 5 else None, "angle_degrees": 0.1 if drift and step % 3 == 0 else None,
                }  # fmt: skip
                series.add(line)
        ended = {
            "train_loss": 1.5, "train_error": 0.6, "validation_error": error, "step_seconds": 0.1, "waiting_share": 0.02,
            "rank_step_seconds_min": 0.1, "train_images": 100, "train_images_available": 100, "validation_images": 10,
        }  # fmt: skip
        rows.append(make_row(case=case, probe="training", metrics=ended, samples={}, series=name))
    return report_of(folder, *rows)


def members(seed: int = 0) -> list[Case]:
    stored = BASE.replace(seed=seed)
    return [stored.replace(model="resnet-32"), stored, stored.replace(strategy="reconstructed"), stored.replace(ulp=1)]


def test_published_and_ours_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    found = tables(trained(tmp_path, dict(zip(members(), (0.25, 0.30, 0.31, 0.32), strict=True))))
    table = found["Classification error, % (the paper's Tables 3 and 4)"]
    assert table.columns == (
        "Network", "CIFAR-10, paper", "CIFAR-100, paper", "ImageNet, paper", "CIFAR-10 (JPEG), stored, 600 steps, batch 8",
        "CIFAR-10 (JPEG), reconstructed, 600 steps, batch 8",
    )  # fmt: skip
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["ResNet-32"] == ["7.14", "29.95", "–", "25.00", "–"]
    assert rows["RevNet-38"] == ["7.24", "28.96", "–", "30.00", "31.00"]  # the null is no result of ours
    assert rows["RevNet-104"] == ["–", "–", "23.10", "–", "–"]
    with_more_steps = {case.replace(training_steps=9, data_images=50): 0.2 for case in members()}
    assert "accumulate" not in table.columns[-1]
    both = trained(tmp_path / "both", dict.fromkeys(members(), 0.25) | with_more_steps)
    columns = tables(both)["Classification error, % (the paper's Tables 3 and 4)"].columns
    assert columns[6:] == (  # never averaged with the other way
        "CIFAR-10 (JPEG), stored, 9 steps, 50 images, batch 8", "CIFAR-10 (JPEG), reconstructed, 9 steps, 50 images, batch 8"
    )  # fmt: skip
    assert found["Where each training run ended"].rows[0][-1] == "2.0%"


def test_figures_3_and_4_of_a_pair_with_the_angle_where_it_was_measured(tmp_path: Path) -> None:
    cases = {case: 0.3 for seed in (0, 1) for case in members(seed)}
    third, fourth = figures(trained(tmp_path / "with", cases, drift=True)).values()
    assert third.title == "Training curves: ResNet-32 and RevNet-38 on CIFAR-10 (JPEG)"
    assert fourth.title == "Training curves: RevNet-38, stored and reconstructed on CIFAR-10 (JPEG)"
    for number, figure in ((3, third), (4, fourth)):
        assert f"As Figure {number} of the paper. The first of 2 seeds." in figure.notes[0]
        assert "the reversible network under stored and 1 null run that differs from it" in figure.notes[0]
    assert third.alternative == (
        "ResNet-32 stored ends at validation error 30.0%; RevNet-38 reconstructed ends at validation error 30.0%"
    )
    _, plain = figures(trained(tmp_path / "without", cases)).values()
    assert len(fourth.svg) > len(plain.svg)  # a panel more
    assert "Angle" not in plain.notes[0]


def test_a_single_network_has_one_figure(tmp_path: Path) -> None:
    (figure,) = figures(trained(tmp_path / "a", {BASE.replace(model="resnet-32"): 0.3})).values()
    assert "Figure 3" in figure.notes[0]
    assert "Shaded" not in figure.notes[0]
    assert "seeds" not in figure.notes[0]
    (figure,) = figures(
        trained(tmp_path / "b", {BASE: 0.3, BASE.replace(ulp=1): 0.3, BASE.replace(ulp=2): 0.4})
    ).values()
    assert "Figure 4" in figure.notes[0]
    assert "2 null runs that differ from it" in figure.notes[0]


def test_seeds_and_processes_are_told_apart(tmp_path: Path) -> None:
    cases = {BASE.replace(seed=seed): 0.3 for seed in (0, 1)} | {BASE.replace(world_size=2, sync_batch_norm=True): 0.2}
    found = tables(trained(tmp_path, cases))
    assert [row[1] for row in found["Where each training run ended"].rows[:2]] == ["stored, seed 0", "stored, seed 1"]
    (row,) = found["Trainings on several processes"].rows
    assert row == ["RevNet-38", "stored", "2", "whole batch", "100 ms", *["–"] * 5]


def sentences(report: Report) -> list[str]:
    of_trainings = (s for s in report.sections if s.title == "Training on real data")
    return [b.text for s in of_trainings for b in s.blocks if isinstance(b, Paragraph)]


def test_a_sentence_says_where_a_pair_ended(tmp_path: Path) -> None:
    errors = dict(zip(members(), (0.25, 0.30, 0.31, 0.32), strict=True)) | {BASE.replace(ulp=2): 0.29}
    assert sentences(trained(tmp_path / "one", errors)) == [
        "RevNet-38, trained for 600 steps on CIFAR-10 (JPEG), ends at a validation error of 31.0% reconstructed and 30.0% stored;"
        " the null, which differs from stored by one unit in the last place of one weight, at 29.0% to 32.0%; a claim that both"
        " strategies end at the same error takes 5 seeds."
    ]
    for name, apart, verdict in (("same", 0.001, "the two are the same within"), ("far", 0.1, "is not shown")):
        cases = {case: 0.3 + apart * (case.strategy != "stored") for seed in range(5) for case in members(seed)}
        (words,) = sentences(trained(tmp_path / name, cases))
        assert "(means over 5 seeds)" in words
        assert verdict in words
    assert sentences(trained(tmp_path / "stored", {BASE: 0.3})) == []


def test_unlike_trainings_are_never_averaged(tmp_path: Path) -> None:
    cases = {BASE: 0.3, BASE.replace(seed=1): 0.4, BASE.replace(accumulate=2): 0.1}
    table = tables(trained(tmp_path, cases))["Classification error, % (the paper's Tables 3 and 4)"]
    assert [column.rpartition(", ")[2] for column in table.columns[4:]] == ["accumulate=1", "accumulate=2"]
    assert next(row for row in table.rows if row[0] == "RevNet-38")[4:] == ["35.00", "10.00"]


def test_the_crop_is_said(tmp_path: Path) -> None:
    for recipe, words in (("cifar", "4 pixels of zeros"), ("imagenet", "torchvision's standard crop")):
        found = tables(trained(tmp_path / recipe, {BASE.replace(recipe=recipe): 0.3}))["Where each training run ended"]
        assert words in found.notes[2]
        assert found.notes[1] == "CIFAR-10 (JPEG): 100 images to train on, 10 to validate."
        assert len(found.notes) == 3


def test_few_seeds_claim_nothing(tmp_path: Path) -> None:
    found = tables(trained(tmp_path, dict(zip(members(), (0.25, 0.30, 0.30, 0.32), strict=True))))
    (row,) = found["Do stored and reconstructed end at the same error?"].rows
    assert row == ["RevNet-38", "CIFAR-10 (JPEG)", "1", "+0.00", "–", "not tested: at least 5 seeds"]


def test_five_seeds_may(tmp_path: Path) -> None:
    cases = {}
    for seed in range(5):
        for case, error in zip(members(seed), (0.25, 0.3, 0.3 + 0.001 * (seed - 2), 0.32), strict=True):
            cases[case] = error
    (row,) = tables(trained(tmp_path, cases))["Do stored and reconstructed end at the same error?"].rows
    assert row[2:4] == ["5", "+0.00"]
    assert row[-1] == "yes"


def test_differences_that_are_all_alike_prove_nothing() -> None:
    """Nobody knows how they scatter; only five of 0 are the same whatever they would."""
    assert equivalence([0.0099] * 5)[1:] == (
        "–", "not shown: the differences are all alike, so nobody knows how they scatter"
    )  # fmt: skip
    assert equivalence([0.0] * 5)[2] == "yes"


@pytest.mark.parametrize(
    ("mean", "deviation"), [(0.0, 0.002), (0.0, 0.03), (0.02, 0.001), (0.008, 0.004), (-0.009, 0.0005)]
)
def test_equivalence_against_two_one_sided_tests(mean: float, deviation: float) -> None:
    differences = mean + deviation * np.random.default_rng(0).standard_normal(8)
    above = stats.ttest_1samp(differences, -MARGIN, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, MARGIN, alternative="less").pvalue
    beyond = (
        stats.ttest_1samp(differences, MARGIN, alternative="greater").pvalue,
        stats.ttest_1samp(differences, -MARGIN, alternative="less").pvalue,
    )
    shown = "yes" if max(above, below) < 0.05 else "no" if min(beyond) < 0.05 else "not shown"
    assert equivalence(differences.tolist())[2] == shown


def test_a_series_that_can_not_be_drawn_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "short.jsonl").write_text('["step", "loss"]\n[1, 2.0]\n')
    row = make_row(case=BASE, probe="training", metrics={}, samples={}, series="short.jsonl")
    assert figures(report_of(tmp_path, row)) == {}
    assert "angle_degrees" in COLUMNS


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=30), st.integers(1, 8))
def test_running_means_pass_over_what_is_not_there(values: list[float], window: int) -> None:
    found = running_means(np.asarray(values), window)
    for i, value in enumerate(found):
        there = [v for v in values[max(i + 1 - window, 0) : i + 1] if not math.isnan(v)]
        assert math.isnan(value) if not there else value == pytest.approx(sum(there) / len(there), abs=1e-9)
