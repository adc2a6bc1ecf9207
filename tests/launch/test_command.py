"""`revbench train`: which trainings belong together, what is printed, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.launch.command import check_checkpoints
from revbench.results.journal import series_stem
from revbench.results.runs import read_run
from tests.conftest import ROOT, Cli, interruptible, run_command
from tests.launch.processes import ends, kill_worker, running, wait_for_a_checkpoint

BASE = Case(model="", batch_size=8, training_steps=4, data="digits")
TRAIN = ("train", "revnet-38", "--steps", "4", "--batch-size", "4", "--evaluations", "2", "--checkpoint-every", "2")


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
        (("revnet-38", "--data", "nowhere"), "'nowhere' is neither a folder nor a file"),
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


@pytest.mark.slow
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
    check_checkpoints(tmp_path, [mine, other])
    with pytest.raises(UserError, match="is of another training than these; give the arguments with which it began"):
        check_checkpoints(tmp_path, [other])


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
    assert done.stderr.endswith(
        "; make room; then begin again: it came to no row and no checkpoint, and nothing is kept\n"
    )
    assert not (tmp_path / "alone").exists()
    resumed = run_command(*arguments, "--resume", "out", cwd=tmp_path, module="revbench", PYTHONPATH=str(ROOT))
    assert resumed.returncode == 0, resumed.stderr
    rows = read_run(tmp_path / "out").rows
    assert [row.ok for row in rows] == [True, True]
    assert rows[0] == first
