"""Checkpoints: a training that is killed goes on bit for bit, and what can't be used is said in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from revbench.case import Case
from revbench.errors import UserError
from revbench.training.checkpoint import Checkpoints
from revbench.training.loop import measure_training
from revbench.training.stream import COLUMNS, SeriesFile
from revbench.workload import Workload, build_workload
from tests.conftest import ROOT

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=8, training_steps=12, data="digits", image_size=16)
SCRIPT = """
import os, signal, sys
from tests.training.test_checkpoint import CASE, train
train(CASE, sys.argv[1], dies_at=int(sys.argv[2]))
"""


def train(case: Case, folder: Path | str | None, *, dies_at: int = 0) -> tuple[str, list[float], int]:
    def progress(message: dict[str, int]) -> None:
        if dies_at and message["done"] == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    found = measure_training(
        build_workload(case), progress=progress, checkpoint_every=3, evaluations=2,  # type: ignore[arg-type]
        folder=None if folder is None else str(folder),
    )  # fmt: skip
    return str(found.metrics["weights_sha256"]), found.series.get("loss", []), int(found.metrics["resumed_at_step"])  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[str, list[float], int]:
    return train(CASE, None)


@pytest.mark.parametrize(
    "dies_at", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 7,
                pytest.param(11, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: tuple[str, list[float], int], dies_at: int
) -> None:
    whole, losses, _ = undisturbed
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(dies_at)]
    killed = subprocess.run(command, cwd=ROOT, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    resumed, _, first = train(CASE, tmp_path)
    assert first == (dies_at - 1) // 3 * 3  # a step is told before its checkpoint is written
    assert resumed == whole
    lines = (tmp_path / "series" / "training.jsonl").read_text().splitlines()
    assert len(lines) == 1 + CASE.training_steps
    with SeriesFile(tmp_path / "series" / "training.jsonl", keep=12) as series:
        assert series.columns()["loss"] == losses
    assert not list((tmp_path / "checkpoints").iterdir())  # it is over


def checkpoint(folder: Path, *steps: int, case: Case = CASE) -> Checkpoints:
    found = Checkpoints(folder, "training")
    for step in steps:
        workload = build_workload(case.replace(seed=step))
        found.save(Workload(case, workload.model, workload.make_batch, workload.loss, workload.optimizer), step)
    return found


def test_the_one_before_takes_the_place_of_a_broken_one(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3, 6)
    newest = tmp_path / "training.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    workload = build_workload(CASE)
    step, word = found.restore(workload)
    assert step == 3
    assert word == "the checkpoint training.pt can't be read; going on from the one before, at step 3"
    expected = build_workload(CASE.replace(seed=3)).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in workload.model.state_dict().items())
    (tmp_path / "training.previous.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"training.pt can't be read; delete it to begin anew"):
        found.restore(workload)


def test_between_two_renames(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3, 6)
    (tmp_path / "training.pt").unlink()  # killed after the first rename
    assert found.restore(build_workload(CASE)) == (3, None)


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3)
    with pytest.raises(UserError, match=r"is a checkpoint of revnet-38,.*, not of resnet-32,.*; name another folder"):
        found.restore(build_workload(CASE.replace(model="resnet-32", strategy="stored")))
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    torch.save({**state, "version": 99}, tmp_path / "training.pt")
    with pytest.raises(UserError, match="checkpoint version 99; this revbench reads version 1"):
        found.restore(build_workload(CASE))
    del state["model"]["head.4.bias"]
    torch.save(state, tmp_path / "training.pt")
    with pytest.raises(UserError, match=r"does not fit this network: .*; delete it to begin anew"):
        found.restore(build_workload(CASE))


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "evil": Evil()}, tmp_path / "training.pt")
    with pytest.raises(UserError, match="can't be read"):
        Checkpoints(tmp_path, "training").restore(build_workload(CASE))
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkpoint(tmp_path, 3)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("revbench.training.checkpoint.write_atomically", full)
    with pytest.raises(UserError, match=r"can't write the checkpoint .*No space left on device; make room and resume"):
        checkpoint(tmp_path, 6)
    assert found.restore(build_workload(CASE))[0] == 3


class TestSeries:
    def test_lines_after_the_checkpoint_are_written_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "series" / "x.jsonl"
        with SeriesFile(path) as series:
            for step in range(5):
                series.add({"step": step, "loss": float("nan") if step == 1 else step / 3})
        with path.open("a") as file:
            file.write('[5, 0.1, "torn')
        with SeriesFile(path, keep=3) as series:
            series.add({"step": 3, "loss": 7.0})
            assert series.columns()["loss"] == [0.0, None, 2 / 3, 7.0]
        assert len(path.read_text().splitlines()) == 5

    def test_a_file_of_another_version_is_begun_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_text('["step", "something"]\n[1, 2]\n')
        with SeriesFile(path, keep=1) as series:
            assert series.columns() == {name: [] for name in COLUMNS}

    def test_a_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "series").write_text("a file")
        with pytest.raises(UserError, match="can't write the series"):
            SeriesFile(tmp_path / "series" / "x.jsonl")

    def test_writing_costs_less_than_a_hundredth_of_a_step(self, tmp_path: Path) -> None:
        """Side by side with the smallest step that is trained anywhere here."""
        workload = build_workload(CASE.replace(image_size=8))
        inputs, targets = workload.batch()
        workload.step(inputs, targets)
        start = time.perf_counter()
        for _ in range(3):
            workload.step(inputs, targets)
        step = (time.perf_counter() - start) / 3
        with SeriesFile(tmp_path / "x.jsonl") as series:
            start = time.perf_counter()
            for i in range(300):
                series.add(
                    {"step": i, "loss": 0.123456789 * i, "error": 0.5, "learning_rate": 0.1, "step_seconds": 0.1}
                )
            line = (time.perf_counter() - start) / 300
        assert line < 0.01 * step
