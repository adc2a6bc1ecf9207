"""`revbench train`: which trainings belong together, what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.recipes import RECIPES
from revbench.results.journal import read_run
from revbench.training.command import _steps
from revbench.training.members import model_cases, pair_cases, pair_of
from revbench.training.sources import count_training_images
from tests.conftest import Cli, run_command

BASE = Case(model="", batch_size=8, training_steps=4, data="digits")
TRAIN = ("train", "revnet-38", "--steps", "4", "--batch-size", "4", "--evaluations", "2", "--checkpoint-every", "2")


@pytest.mark.parametrize("number", ["38", "32"])
def test_a_pair_by_either_number(number: str) -> None:
    assert pair_of(number) == ("resnet-32", "revnet-38")


def test_pairs_that_are_there() -> None:
    assert [pair_of(number)[1] for number in ("110", "164", "104", "101")] == [
        "revnet-110", "revnet-164", "revnet-104", "revnet-104"
    ]  # fmt: skip
    with pytest.raises(UserError, match="no pair '33'; there are 38, "):
        pair_of("33")


def test_the_members_of_a_pair() -> None:
    found = pair_cases(("resnet-32", "revnet-38"), BASE, nulls=2, seeds=range(3, 5))
    assert [(c.model, c.strategy, c.ulp, c.seed) for c in found[:5]] == [
        ("resnet-32", "stored", 0, 3), ("revnet-38", "stored", 0, 3), ("revnet-38", "reconstructed", 0, 3),
        ("revnet-38", "stored", 1, 3), ("revnet-38", "stored", 2, 3),
    ]  # fmt: skip
    assert {c.seed for c in found} == {3, 4}
    assert len({c.id for c in found}) == 10


def test_single_models() -> None:
    found = model_cases(["resnet-32", "revnet-38"], (), BASE, seeds=[0])
    assert [c.strategy for c in found] == ["stored", "reconstructed"]
    with pytest.raises(UserError, match="unknown strategy 'kept'"):
        model_cases(["revnet-38"], ["kept"], BASE, seeds=[0])


def test_steps_and_epochs() -> None:
    cifar = RECIPES["cifar"]
    assert _steps(cifar, None, None, 50_000, 100) == 80_000
    assert _steps(RECIPES["imagenet"], None, None, 50_000, 100) == 600_000
    assert _steps(cifar, 7, None, 50_000, 100) == 7
    assert _steps(cifar, None, 2.5, 50_000, 100) == 1250
    assert _steps(cifar, None, 0.001, 100, 100) == 1
    with pytest.raises(UserError, match="not both"):
        _steps(cifar, 1, 1.0, 100, 10)
    with pytest.raises(UserError, match="--epochs=nan must be more than 0"):
        _steps(cifar, None, float("nan"), 100, 10)


def test_training_images_are_counted(tmp_path: Path) -> None:
    assert count_training_images("digits") == 1_438
    for name in ("a", "b"):
        (tmp_path / "whole" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "whole" / name / f"{i}.png").touch()
    assert count_training_images(str(tmp_path / "whole")) == 8
    for split, count in (("train", 3), ("test", 1)):
        (tmp_path / "split" / split / "a").mkdir(parents=True)
        for i in range(count):
            (tmp_path / "split" / split / "a" / f"{i}.png").touch()
    assert count_training_images(str(tmp_path / "split")) == 3


def test_a_run_and_its_digest(tmp_path: Path) -> None:
    done = run_command(*TRAIN, "--drift-every", "2", "--output", "out", cwd=tmp_path, module="revbench")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    (row,) = read_run(tmp_path / "out").rows
    assert lines[-1] == f"{row.case.id}  sha256 {row.metrics['weights_sha256']}"
    assert row.case.strategy == "reconstructed"
    assert row.options == {"evaluations": 2, "drift_every": 2, "checkpoint_every": 2, "validation_images": 0}
    series = read_run(tmp_path / "out").series(row)
    assert series["step"] == [1, 2, 3, 4]
    assert [angle is not None for angle in series["angle_degrees"]] == [True, False, True, False]
    assert all(value is not None and value > 0 for value in series["peak_bytes"])
    assert "Training curves: RevNet-38 on digits" in (tmp_path / "out" / "report.md").read_text()
    resumed = run_command(*TRAIN, "--resume", "out", "--json", cwd=tmp_path, module="revbench")
    found = json.loads(resumed.stdout)
    assert [one["metrics"]["weights_sha256"] for one in found["rows"]] == [
        row.metrics["weights_sha256"]
    ]  # and no second row


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one or more models, or --pair NUMBER"),
        (("revnet-38", "--pair", "38"), "give one or more models, or --pair NUMBER"),
        (("--pair", "38", "--strategy", "stored"), "--strategy is for single models"),
        (("--pair", "38", "--steps", "0"), "--steps=0 must be at least 1"),
        (("--pair", "38", "--nulls", "-1"), "--nulls=-1 must be at least 0"),
        (("--pair", "38", "--seeds", "0"), "--seeds=0 must be at least 1"),
        (("--pair", "38", "--drift-every", "-1"), "--drift-every=-1 must be at least 0"),
        (("--pair", "38", "--clip", "-1"), "clip_norm=-1.0 must be a number of at least 0"),
        (("--pair", "38", "--clip", "nan"), "clip_norm=nan must be a number of at least 0"),
        (("--pair", "38", "--accumulate", "0"), "accumulate=0 must be an integer of at least 1"),
        (("revnet-38", "--data", "nowhere"), "'nowhere' is not a folder"),
        (("resnet-32", "--strategy", "reconstructed"), "resnet-32 has no reversible block"),
        (("revnet-38", "--output", "a", "--resume", "b"), "leave --output away"),
        (("revnet-38", "--resume", "b"), "holds no rows.jsonl to resume"),
    ],
)
def test_what_can_not_be(tmp_path: Path, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = cli("train", *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
