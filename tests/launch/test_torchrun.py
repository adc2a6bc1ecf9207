"""One training on two processes: the weights of one process, the time and memory of both, and an end with a reason."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from revbench.case import Case
from revbench.errors import RunEnded, UserError
from revbench.launch.tasks import Task, own_task, read_outcome, read_words
from revbench.launch.torchrun import check_command
from revbench.results.runs import Run, read_run
from revbench.results.schema import Row
from revbench.training.loop import measure_training
from revbench.training.ranks import checked_size, pack, unpack
from revbench.training.rendezvous import Rank
from revbench.workload import build_workload
from tests.conftest import ROOT
from tests.launch.processes import ends, kill_worker, running, started, wait_for_a_checkpoint

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "revbench")
ENDLESS = (
    "train", "revnet-38", "--batch-size", "4", "--steps", "100000", "--checkpoint-every", "2", "--device", "cpu",
    "--output", "out",
)  # fmt: skip


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    return {**clean, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def two(*arguments: str, cwd: Path) -> list[tuple[int, str, str]]:
    with started(*arguments, cwd=cwd) as processes:
        return [ends(process) for process in processes]


def only_row(folder: Path) -> tuple[Run, Row]:
    run = read_run(folder)
    (row,) = run.rows
    return run, row


def test_two_processes_train_what_one_trains_on_the_whole_batch(tmp_path: Path) -> None:
    """Reconstructed, synchronised and through torchrun against stored, alone and in this process."""
    arguments = (
        "train", "revnet-38", "--dtype", "float64", "--batch-size", "8", "--steps", "4", "--sync-batch-norm",
        "--evaluations", "2", "--validation-images", "20", "--checkpoint-every", "2", "--device", "cpu", "--output", "out",
    )  # fmt: skip
    done = subprocess.run(
        [*TORCHRUN, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=180, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run, row = only_row(tmp_path / "out")
    alone = Case(model="revnet-38", dtype="float64", batch_size=8, data="digits", training_steps=4)
    assert row.case == alone.replace(strategy="reconstructed", world_size=2, sync_batch_norm=True)
    assert done.stdout.splitlines()[-1] == f"{row.case.id}  sha256 {row.metrics['weights_sha256']}"  # rank 1 is silent
    found = run.series(row)
    expected = measure_training(
        build_workload(alone), progress=lambda _: None, evaluations=2, validation_images=20
    ).series
    for name in ("loss", "error", "validation_loss", "validation_error"):
        for ours, theirs in zip(found[name], expected[name], strict=True):
            assert ours == (theirs if theirs is None else pytest.approx(theirs, rel=1e-8)), name
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_parts_of_a_batch_and_the_values_of_every_process(tmp_path: Path) -> None:
    """Without torchrun's agent, so that the first process hosts the store; a network without batch norm."""
    model = "tests.training.test_loop:plain(size=32)"
    arguments = (
        "train", model, "--strategy", "stored", "--batch-size", "8", "--steps", "3", "--accumulate", "2", "--device", "cpu",
        "--output", "out",
    )  # fmt: skip
    ended = two(*arguments, cwd=tmp_path)
    assert [code for code, _, _ in ended] == [0, 0], ended
    run, row = only_row(tmp_path / "out")
    assert ended[1][1] == ""
    alone = row.case.replace(world_size=1, accumulate=1)
    expected = measure_training(build_workload(alone), progress=lambda _: None).series["loss"]
    assert run.series(row)["loss"] == pytest.approx(expected, rel=1e-5)
    for name in ("rank_step_seconds", "rank_peak_bytes"):
        low, middle, high = (row.number(f"{name}_{how}") or 0 for how in ("min", "median", "max"))
        assert 0 < low <= middle <= high
        assert sorted(row.samples[name]) == [low, high]
    assert row.metrics["rank_environment_ids"] == row.environment_id


@pytest.mark.slow
def test_a_process_whose_worker_dies_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    with started(*ENDLESS, cwd=tmp_path) as processes:
        wait_for_a_checkpoint(tmp_path / "out")
        kill_worker(processes[1])
        code, _, said = ends(processes[0])
        assert (code, ends(processes[1])[0]) == (3, 0)
    assert said == (
        "revbench: process 1 of 2: the worker ended by signal SIGKILL without a result; go on with --resume out\n"
    )
    assert list((tmp_path / "out" / "checkpoints").glob("*.pt"))
    assert (tmp_path / "out" / "rows.jsonl").exists()  # so that it can be resumed


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_resumed_on_two_processes_it_ends_with_the_same_bits(tmp_path: Path, victim: int) -> None:
    steps = ("train", "revnet-38", "--batch-size", "4", "--steps", "60", "--checkpoint-every", "5", "--device", "cpu")
    assert [code for code, _, _ in two(*steps, "--output", "whole", cwd=tmp_path)] == [0, 0]
    with started(*steps, "--output", "out", cwd=tmp_path) as processes:
        wait_for_a_checkpoint(tmp_path / "out")
        kill_worker(processes[victim])
        assert ends(processes[0])[0] == 3
    assert [code for code, _, _ in two(*steps, "--resume", "out", cwd=tmp_path)] == [0, 0]
    (_, whole), (_, resumed) = only_row(tmp_path / "whole"), only_row(tmp_path / "out")
    assert resumed.metrics["resumed_at_step"] != 0
    assert resumed.metrics["weights_sha256"] == whole.metrics["weights_sha256"]


@pytest.mark.slow
def test_a_process_that_dies_as_a_whole_ends_all(tmp_path: Path) -> None:
    """torchrun notices, and tells the others to go."""
    with running([*TORCHRUN, *ENDLESS], cwd=tmp_path, env=environment()) as agent:
        wait_for_a_checkpoint(tmp_path / "out")
        followers = [p for p in psutil.Process(agent.pid).children() if p.environ().get("RANK") == "1"]
        family = psutil.Process(agent.pid).children(recursive=True)
        os.kill(followers[0].pid, signal.SIGKILL)
        code, _, said = ends(agent)
    assert code != 0
    reasons = r"process 1 of 2: it does not answer any more|ended by SIGTERM \(.*another process of this run died\)"
    assert re.search(rf"^revbench: ({reasons}); go on with --resume out$", said, re.MULTILINE), said
    assert not psutil.wait_procs(family, timeout=10)[1]  # nobody is left behind


@pytest.mark.slow
def test_without_an_agent_a_follower_ends_when_the_first_process_is_gone(tmp_path: Path) -> None:
    with started(*ENDLESS, cwd=tmp_path) as processes:
        wait_for_a_checkpoint(tmp_path / "out")
        processes[0].kill()
        code, _, said = ends(processes[1], timeout=60)
    assert code == 3
    assert said.splitlines()[-1].startswith("revbench: process 1: another process of this run is gone")


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    with started("train", "revnet-38", "--batch-size", "3", "--device", "cpu", cwd=tmp_path) as processes:
        assert ends(processes[0]) == (
            2, "", "revbench: batch_size=3 can't be split evenly among 2 processes; give a multiple of 2\n"
        )  # fmt: skip
        processes[1].terminate()  # as torchrun does
        assert ends(processes[1])[1:] == ("", "")
    assert not list(tmp_path.iterdir())


TASKS = [
    Task(Case(model="revnet-38", seed=seed), {"evaluations": 2, "data_path": "/here", "loaders": 3}, 60.0)
    for seed in (0, 1)
]


def test_a_process_does_nothing_that_its_own_command_line_does_not_say() -> None:
    """Whoever reaches the store can name a training there, but none of his own."""
    good = {"index": 1, "digest": TASKS[1].digest}
    assert own_task(good, TASKS, 1) is TASKS[1]
    elsewhere = Task(TASKS[1].case, {"evaluations": 2, "data_path": "/there", "folder": "out", "stem": "a"}, 60.0)
    assert elsewhere.digest == TASKS[1].digest  # where images and files are is each machine's own
    factory = Task(Case(model="os:system"), {"evaluations": 2}, 60.0)
    for changed in (
        {"digest": TASKS[0].digest}, {"digest": factory.digest}, {"index": 2}, {"index": -1}, {"index": True}, {"index": "1"},
        {"index": None}, {"digest": None},
    ):  # fmt: skip
        with pytest.raises(RunEnded, match="process 1 was called to a training that its command line does not name"):
            own_task({**good, **changed}, TASKS, 1)
    other = Task(TASKS[1].case, {"evaluations": 3}, 60.0)
    assert other.digest != TASKS[1].digest


@pytest.mark.parametrize("text", [b"", b"null", b"[1]", b"\xff", b"[" * 100_000, b'{"a": ' + b"1" * (2 << 20) + b"}"])
def test_what_strangers_put_into_the_store_is_one_line(text: bytes) -> None:
    with pytest.raises(RunEnded, match="the store of this run holds what none of its processes writes"):
        read_words(text)


def test_outcomes_are_words() -> None:
    told = read_outcome(
        json.dumps({"status": ["ok"], "message": {"a": 1}, "more": 3, "log_tail": "x" * 10**5}).encode()
    )
    assert told["status"] == "crashed"
    assert told["message"] == "{'a': 1}"
    assert len(told["log_tail"]) == 4000
    assert read_outcome(b'{"status": "left"}')["status"] == "left"


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


def test_what_processes_tell_each_other_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value = {"cpu": torch.get_rng_state(), "note": None, "numbers": (1, 2.5), "words": ["a"]}
    back = unpack(pack(value))
    assert torch.equal(back.pop("cpu"), value.pop("cpu"))  # type: ignore[arg-type]
    assert back == value
    with pytest.raises(UserError, match="another process sent what can't be read"):
        unpack(pack({"evil": Evil()}))
    assert not list(tmp_path.iterdir())
    for size in (0, -1, 11):
        with pytest.raises(UserError, match="announced"):
            checked_size(size, 10)


def test_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)
    assert Rank.from_environment() is None
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"not all of torchrun's variables .*LOCAL_RANK.*; use torchrun"):
        Rank.from_environment()
    for name, value in (("LOCAL_RANK", "0"), ("MASTER_ADDR", "somewhere"), ("MASTER_PORT", "1234")):
        monkeypatch.setenv(name, value)
    rank = Rank.from_environment()
    assert rank == Rank(0, 2, 0, "somewhere", 1234, True, "0")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert Rank.from_environment() == Rank(0, 2, 0, "somewhere", 1234, False, "0")
    with pytest.raises(UserError, match="only `revbench train` is for torchrun"):
        check_command("run")
