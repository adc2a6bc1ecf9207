"""Every way in which a worker can end is a row, and the next one is not affected."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.probes.measurement import Measurement
from revbench.runner import server as server_module
from revbench.runner.client import WorkerServer
from revbench.runner.server import explain, oom_kills
from revbench.runner.worker import as_json
from tests.conftest import ROOT

FAULTS = "tests.runner.faults"


def case(name: str, **fields: object) -> Case:
    return Case(model=f"{FAULTS}:{name}", batch_size=2, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("killed", "crashed", "SIGKILL"),
        ("exits", "crashed", "SystemExit: 3"),
        ("exits_hard", "crashed", "exit code 5"),
        ("raises", "crashed", "RuntimeError: a fault"),
        ("out_of_memory", "oom", "can't allocate memory"),
        ("unsupported", "unsupported", "no kernel"),
        ("dies_with_a_child_left", "crashed", "exit code 6"),
    ],
)
def test_a_fault_is_a_status(server: WorkerServer, name: str, status: str, message: str) -> None:
    found = server.measure([case(name)], "parameters")
    assert found["status"] == status
    assert message in found["message"]
    assert "\n" not in found["message"]
    assert server.measure([case("healthy")], "parameters")["measurements"][0]["metrics"] == {
        "parameters": 30_730, "strategies": "stored",
    }  # fmt: skip


def test_a_batch_that_does_not_fit_is_oom(server: WorkerServer) -> None:
    found = server.measure([Case(model="revnet-38", batch_size=10**11)], "time")
    assert found["status"] == "oom"


def test_a_hanging_worker_is_killed(server: WorkerServer) -> None:
    began = time.monotonic()
    found = server.measure([case("hangs")], "parameters", timeout_seconds=0.5)
    assert found["status"] == "timeout"
    assert "0.5 seconds" in found["message"]
    assert time.monotonic() - began < 30
    assert server.measure([case("healthy")], "parameters")["status"] == "ok"


def test_silence_is_a_timeout_but_patience_can_be_asked_for(server: WorkerServer) -> None:
    hanging = server.measure([case("hangs")], "parameters", timeout_seconds=None, silence_seconds=0.3)
    assert (hanging["status"], hanging["message"]) == ("timeout", "no word for too long: it hangs")
    for name in ("timeout_seconds", "silence_seconds"):
        for value in (math.nan, -1.0, 0.0, math.inf):
            with pytest.raises(UserError, match=f"{name}={value} must be a number of more than 0"):
                server.measure([case("healthy")], "parameters", **{name: value})  # type: ignore[arg-type]


_PRELOADS = """
import importlib, torch

def touched(*_):
    raise AssertionError("CUDA was touched")

for name in ("_cuda_getDeviceCount", "_cuda_init"):
    setattr(torch._C, name, touched)
from revbench.runner.server import PRELOADED
for module in PRELOADED:
    importlib.import_module(module)
"""


def test_the_server_begins_with_no_gpu() -> None:
    """What is forked after CUDA was begun with can't use it, and counting devices begins with it."""
    subprocess.run([sys.executable, "-c", _PRELOADS], cwd=ROOT, check=True, timeout=120)


def test_windows_is_told_of_wsl2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(UserError, match="run it inside WSL2"), WorkerServer() as own:
        own.environment()


@pytest.mark.parametrize("problem", [errno.ENOSYS, errno.EPERM, errno.EACCES, None])
def test_a_system_without_descriptors_of_processes(monkeypatch: pytest.MonkeyPatch, problem: int | None) -> None:
    """An old kernel, gVisor, or a container's filter of system calls."""

    def refuse(*_: object) -> int:
        raise OSError(problem, "no") if problem is not None else AttributeError("pidfd_open")

    monkeypatch.setattr(os, "pidfd_open", refuse, raising=False)
    messages, writer = os.pipe()
    requests, asks = os.pipe()
    os.write(writer, b'{"kind": "result", "status": "ok"}\n')
    asked = {"timeout_seconds": 60, "silence_seconds": None}
    found = server_module._relay(asked, messages, requests, -1, os.getpid())
    assert found == ({"kind": "result", "status": "ok"}, True)
    for descriptor in (messages, writer, requests, asks):
        os.close(descriptor)


def test_an_answer_that_is_there_is_not_late(server: WorkerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long whoever takes the messages was held up, by Ctrl-S, say."""
    monkeypatch.setattr("revbench.runner.client.GRACE_SECONDS", 0.2)
    held_up = []

    def progress(message: object) -> None:
        held_up.append(message)
        time.sleep(0.6)

    drift = Case(model="revnet-38", strategy="reconstructed", batch_size=2, image_size=8)
    found = server.measure(
        [drift], "drift", options={"draws": 2}, timeout_seconds=None, silence_seconds=60, progress=progress
    )
    assert found["status"] == "ok", found
    assert held_up


def test_files_of_the_current_folder_shadow_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "statistics", "json"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a stranger was imported')\n")
    monkeypatch.chdir(tmp_path)
    with WorkerServer() as own:
        assert own.measure([Case(model="revnet-38", batch_size=1)], "parameters")["status"] == "ok"


def test_what_is_not_a_number_is_null_with_its_reason() -> None:
    found = as_json(Measurement({"loss": math.nan, "count": 3}, {"loss": [1.0, math.nan]}, {"loss": [1.0, math.inf]}))
    assert found["metrics"] == {"loss": None, "loss_reason": "the value is nan", "count": 3}
    assert found["samples"] == {"loss": [1.0]}
    assert found["series"] == {"loss": [1.0, None]}


def test_a_loss_that_is_not_finite_is_a_row_that_says_where(server: WorkerServer) -> None:
    broken = Case(model="tests.probes.test_drift:broken_model", batch_size=4)
    found = server.measure([broken], "drift", options={"draws": 2})
    assert found["status"] == "crashed"
    assert "the first output that is not finite is that of 1" in found["message"]


@pytest.mark.parametrize(
    ("found", "probe", "words"),
    [
        (Case(model="revnet-38", batch_size=2, tf32_matmul=True), "drift", "the CPU has no TF32 arithmetic"),
        (Case(model="resnet-32", batch_size=2, image_size=8), "lipschitz", "has no reversible block inside"),
    ],
)
def test_what_a_device_or_network_lacks_is_a_row(server: WorkerServer, found: Case, probe: str, words: str) -> None:
    answer = server.measure([found], probe)
    assert answer["status"] == "unsupported"
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (case("not_a_module"), "returned int"),
        (case("absent"), "can't be imported"),
        (Case(model="no_such_module:factory"), "can't be imported"),
        (case("healthy", strategy="reconstructed"), "no revbench.reversible"),
        (Case(model="revnet-38", device="cuda:7"), "not there"),
    ],
)
def test_a_mistake_is_the_users(server: WorkerServer, found: Case, words: str) -> None:
    with pytest.raises(UserError, match=words):
        server.measure([found], "parameters")


def test_the_environment_names_no_person_and_no_place(server: WorkerServer) -> None:
    environment = server.environment()
    assert environment == server.environment()
    assert {"environment_id", "cpu", "memory_bytes", "accelerators", "packages", "torch"} <= set(environment)
    text = repr(environment)
    for secret in (os.uname().nodename, str(Path.home()), str(ROOT)):
        assert secret not in text


def test_oom_kills_are_read_from_the_control_group(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    two, one = tmp_path / "job" / "memory.events", tmp_path / "memory" / "old" / "memory.oom_control"
    for file, text in ((two, "low 0\noom 4\noom_kill 3\n"), (one, "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")):
        file.parent.mkdir(parents=True)
        file.write_text(text)
    membership.write_text("0::/job\n")
    assert oom_kills(tmp_path, membership) == 3
    membership.write_text("5:cpu,memory:/old\n4:pids:/old\n")
    assert oom_kills(tmp_path, membership) == 2
    membership.write_text("garbled\n")
    assert oom_kills(tmp_path, membership) == 0
    membership.write_text("0::/elsewhere\n")
    assert oom_kills(tmp_path, membership) == 0
    (tmp_path / "memory.events").write_text("oom_kill 7\n")  # a container sees its own group at the root
    assert oom_kills(tmp_path, membership) == 7


def test_sigkill_is_oom_only_if_the_counter_rose() -> None:
    assert explain(-signal.SIGKILL, True)["status"] == "oom"
    assert explain(-signal.SIGKILL, False)["status"] == "crashed"
    assert explain(-signal.SIGSEGV, True)["status"] == "crashed"
