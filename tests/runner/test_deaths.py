"""Workers, their server and the process that asks: none outlives the one above it, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from revbench.errors import RunEnded
from revbench.runner import server as server_module
from revbench.runner.client import WorkerServer
from tests.conftest import ROOT
from tests.runner.test_server import case


def wait_until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nothing_of_a_worker_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even a daemon in a session of its own."""
    file = tmp_path / "pid"
    monkeypatch.setenv("REVBENCH_TEST_PID_FILE", str(file))
    with WorkerServer() as own:
        assert own.measure([case("leaves_a_child_in_a_session_of_its_own")], "parameters")["status"] == "ok"
        assert not psutil.pid_exists(int(file.read_text()))
        assert own.measure([case("healthy")], "parameters")["status"] == "ok"


def test_a_server_that_is_stopped_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revbench.runner.client.GRACE_SECONDS", 0.3)
    with WorkerServer() as own:
        assert own.measure([case("healthy")], "parameters")["status"] == "ok"
        assert own._process is not None
        own._process.send_signal(signal.SIGSTOP)
        found = own.measure([case("healthy")], "parameters", timeout_seconds=0.1)
        assert (found["status"], found["message"]) == (
            "timeout", "the worker server did not answer in time (was it stopped?)"
        )  # fmt: skip


def test_a_signal_to_the_server_is_called_by_its_name() -> None:
    with WorkerServer() as own:
        killer = threading.Timer(0.3, own.abandon)
        killer.start()
        with pytest.raises(
            RunEnded, match="the worker server was ended by signal SIGKILL before anything was measured"
        ):
            own.environment()
        killer.join()


def test_a_server_that_somebody_kills_leaves_nothing_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pid"
    monkeypatch.setenv("REVBENCH_TEST_PID_FILE", str(file))

    def strike(number: signal.Signals) -> None:
        while not (file.exists() and file.read_text()):
            time.sleep(0.01)
        assert own._process is not None
        own._process.send_signal(number)

    with WorkerServer() as own:
        for number in (signal.SIGKILL, signal.SIGTERM):
            file.unlink(missing_ok=True)
            striker = threading.Thread(target=strike, args=(number,))
            striker.start()
            found = own.measure([case("leaves_a_child_and_hangs")], "parameters")
            striker.join()
            assert found["status"] == "crashed"
            assert found["message"] == f"the worker server was ended by signal {number.name}"
            assert wait_until(lambda: not is_alive(int(file.read_text())), 10)


def test_a_server_that_was_given_up_before_it_began_does_not_begin() -> None:
    with WorkerServer() as own:
        own.abandon()
        assert own.measure([case("hangs")], "parameters")["message"] == "the worker server was ended by signal SIGKILL"


def test_a_server_whose_parent_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be about to answer then."""
    reader, answers = os.pipe()
    os.close(reader)
    requests, asks = os.pipe()
    os.write(asks, b"{}\n{}\n")
    asked = []

    def attend(request: object, requests: int, answers: int) -> bool:
        asked.append(request)
        server_module._answer(answers, {"kind": "result"})
        raise AssertionError("unreachable")

    monkeypatch.setattr(server_module, "PRELOADED", ())
    monkeypatch.setattr(server_module, "attend", attend)
    server_module.serve(requests, answers)
    assert asked == [{}]
    for descriptor in (answers, requests, asks):
        os.close(descriptor)


PARENT = """
from revbench.case import Case
from revbench.runner.client import WorkerServer
WorkerServer().measure([Case(model="tests.runner.faults:hangs", batch_size=2)], "parameters")
"""


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    environment = {**os.environ, "REVBENCH_TEST_PID_FILE": str(pid_file)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, env=environment)
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text(), 60)
        worker = int(pid_file.read_text())
        server = psutil.Process(worker).ppid()
        assert is_alive(worker)
        assert is_alive(server)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        assert wait_until(lambda: not is_alive(worker) and not is_alive(server), 10)
    finally:
        parent.kill()
        parent.wait()


def test_a_worker_dies_with_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = tmp_path / "pid"
    monkeypatch.setenv("REVBENCH_TEST_PID_FILE", str(pid_file))
    script = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: pid_file.exists() and pid_file.read_text(), 60)
        worker = int(pid_file.read_text())
        server = psutil.Process(worker).ppid()
        os.kill(server, signal.SIGKILL)
        assert wait_until(lambda: not is_alive(worker), 10)
        assert script.wait(timeout=30) == 0  # a crashed server is a status, not an exception
    finally:
        script.kill()
        script.wait()
