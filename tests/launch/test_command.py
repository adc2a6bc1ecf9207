"""`revbench train`: which trainings belong together, what is printed, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from revbench.case import Case
from revbench.case.pairs import model_cases, pair_cases, pair_of
from revbench.errors import UserError
from revbench.launch.board import Board
from revbench.launch.command import _check_checkpoints
from revbench.results.journal import series_stem
from revbench.results.runs import read_run
from revbench.training.sources import count_training_images
from tests.conftest import ROOT, Cli, interruptible, run_command
from tests.launch.processes import ends, kill_worker, running, wait_for_a_checkpoint
from tests.results.rows import make_row

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
    assert "Training curves: RevNet-38, reconstructed on digits" in (tmp_path / "out" / "report.md").read_text()
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
        (("revnet-38", "--output", "a", "--resume", "b"), "omit --output"),
        (("revnet-38", "--resume", "b"), "holds no rows.jsonl to resume"),
    ],
)
def test_what_can_not_be(tmp_path: Path, cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = cli("train", *arguments)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def board(width: int, **message: object) -> str:
    """What the board shows of a pair of which one member is done and one under way, on a console of this width."""
    console = Console(width=width, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    cases = pair_cases(("resnet-32", "revnet-38"), BASE.replace(training_steps=80_000), nulls=1, seeds=[0])
    found = Board(cases, console)
    with found.shown():
        done = {"done": 80_000, "of": 80_000, "loss": 0.2, "error": 0.03, "step_seconds": 0.3, "peak_bytes": 9e8}
        found.progress(cases[0])(done)
        found.ended(cases[0], make_row(case=cases[0], probe="training", metrics={"validation_error": 0.0724}))
        step = found.progress(cases[1])
        step({**done, "done": 30_999, "loss": 1.234, "angle_degrees": 0.11})
        step({**done, "done": 31_000, "loss": 1.234, "step_seconds": 0.342, **message})
        shown = found.table()
    console.print(shown)
    return console.export_text()


def test_the_board_shows_all_members_side_by_side() -> None:
    lines = [" ".join(line.split()) for line in board(120).splitlines()[-5:]]
    assert lines[0] == "done step loss error a step memory angle left validation"
    assert lines[1].endswith("80,000/80,000 0.200 3.0% 300 ms 858.3 MiB 7.2%")
    assert lines[2].endswith("31,000/80,000 1.234 3.0% 342 ms 858.3 MiB 0.110° 4:39:18")  # the last angle stays
    assert lines[3:] == ["RevNet-38 reconstructed waits", "RevNet-38 stored null 1 waits"]
    assert "not finite" in board(120, loss=None)


@pytest.mark.parametrize("width", [65, 80, 100])
def test_a_narrow_board_leaves_columns_out_and_cuts_none(width: int) -> None:
    lines = board(width).splitlines()[-5:]
    assert "…" not in "".join(lines)
    assert "4:39:18" in lines[2]
    assert max(map(len, lines)) <= width


def test_a_run_that_is_interrupted_before_its_first_row_is_resumed(tmp_path: Path) -> None:
    arguments = ["train", "revnet-38", "--batch-size", "4", "--steps", "100000", "--checkpoint-every", "2"]
    told = {
        signal.SIGINT: (130, "interrupted"),
        signal.SIGTERM: (3, "revbench: ended by SIGTERM (a time limit, or another process of this run died)"),
    }  # fmt: skip
    written = 0.0
    for number, (code, words) in told.items():
        command = interruptible("revbench", *arguments, "--resume" if written else "--output", "out")
        with running(command, cwd=tmp_path) as process:
            wait_for_a_checkpoint(tmp_path / "out", newer_than=written)
            process.send_signal(number)
            found = ends(process)
        assert (found[0], found[2]) == (code, f"{words}; go on with --resume out\n")
        written = wait_for_a_checkpoint(tmp_path / "out")
    assert (tmp_path / "out" / "rows.jsonl").is_file()


@pytest.mark.slow
def test_a_training_whose_worker_died_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    arguments = [
        "train", "revnet-38", "--batch-size", "4", "--steps", "60", "--evaluations", "1", "--validation-images", "4",
        "--checkpoint-every", "2",
    ]  # fmt: skip
    with running([sys.executable, "-m", "revbench", *arguments, "--output", "out"], cwd=tmp_path) as process:
        wait_for_a_checkpoint(tmp_path / "out")
        kill_worker(process)
        assert ends(process)[0] == 3
    resumed = run_command(*arguments, "--resume", "out", cwd=tmp_path, module="revbench")
    assert resumed.returncode == 0, resumed.stderr
    died, whole = read_run(tmp_path / "out").rows
    assert (died.status, died.message) == ("crashed", "the worker ended by signal SIGKILL without a result")
    assert died.key == whole.key
    assert whole.metrics["resumed_at_step"] != 0
    assert read_run(tmp_path / "out").series(whole)["step"] == list(range(1, 61))
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_checkpoint_of_none_of_these_trainings_is_not_left_lying(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    mine, other = BASE.replace(model="revnet-38"), BASE.replace(model="revnet-38", training_steps=5)
    for kind in ("", ".previous"):
        (tmp_path / "checkpoints" / f"{series_stem((mine.id, 'training', 1, ''))}{kind}.pt").touch()
    _check_checkpoints(tmp_path, [mine, other])
    with pytest.raises(UserError, match="is of another training than these; give the arguments with which it began"):
        _check_checkpoints(tmp_path, [other])


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """Planted: files of more than 1 MiB can't be written, so the checkpoint of the second network can't."""
    arguments = (
        "train", "tests.training.test_loop:plain(size=32)", "revnet-38", "--strategy", "stored", "--batch-size", "4",
        "--steps", "4", "--evaluations", "1", "--validation-images", "4", "--checkpoint-every", "2",
    )  # fmt: skip
    program = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20));"
        f" sys.argv[1:] = {[*arguments, '--output', 'out']!r}; runpy.run_module('revbench', run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("revbench: can't write the checkpoint ")
    assert done.stderr.endswith(": File too large; make room; then go on with --resume out\n")
    (first,) = read_run(tmp_path / "out").rows
    assert first.ok
    assert not list((tmp_path / "out" / "checkpoints").glob("*"))  # nothing half-written
    (other,) = arguments[1:2]
    alone = (arguments[0], *arguments[2:])
    program = program.replace(f"'{other}', ", "").replace("'out'", "'alone'")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )  # fmt: skip
    assert alone[1] == "revnet-38"
    assert done.stderr.endswith("; make room; then begin again: it came to no checkpoint, and nothing is kept\n")
    assert not (tmp_path / "alone").exists()
    resumed = run_command(*arguments, "--resume", "out", cwd=tmp_path, module="revbench", PYTHONPATH=str(ROOT))
    assert resumed.returncode == 0, resumed.stderr
    rows = read_run(tmp_path / "out").rows
    assert [row.ok for row in rows] == [True, True]
    assert rows[0] == first
