"""The worker server that stays between the calls of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from revbench.case import Case
from revbench.runner.client import Progress
from revbench.runner.kept import _surroundings, end_kept_server, kept_server
from tests.conftest import ROOT

CASE = Case(model="revnet-38", batch_size=1, image_size=8, dtype="float64")


OTHERS: set[int] = set()  # servers of other tests in this process


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left() -> Iterator[None]:
    end_kept_server()
    OTHERS.update(servers())
    yield
    end_kept_server()


def servers() -> list[int]:
    children = psutil.Process().children()
    return [c.pid for c in children if "revbench.runner.server" in " ".join(c.cmdline()) and c.pid not in OTHERS]


def test_the_next_call_finds_the_server_of_the_last() -> None:
    with kept_server({}) as server:
        server.environment()
        first = servers()
    assert len(first) == 1
    with kept_server({}) as server:
        server.environment()
        assert servers() == first
    end_kept_server()
    assert servers() == []


def test_two_calls_at_once_have_a_server_each_and_one_stays() -> None:
    with kept_server({}) as server:
        server.environment()
        with kept_server({}) as other:
            other.environment()
            assert len(servers()) == 2
    assert len(servers()) == 1


def test_it_stays_after_a_mistake_and_not_after_half_an_answer() -> None:
    def fail(told: Progress) -> None:
        with kept_server({}) as server:
            server.measure([CASE], "doctor", options={"checks": ["twin"]}, progress=told)
            raise ValueError("mine")

    def interrupted(message: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(ValueError, match="mine"):
        fail(lambda _: None)
    assert len(servers()) == 1
    with pytest.raises(KeyboardInterrupt):
        fail(interrupted)
    assert servers() == []


def test_other_surroundings_and_a_dead_server_are_no_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pid() -> int:
        with kept_server({}) as server:
            server.environment()
            (found,) = servers()
            return found

    first, here = pid(), _surroundings()
    monkeypatch.setenv("PYTEST_CURRENT_TEST", "another test in this process")
    assert _surroundings() == here
    monkeypatch.chdir(tmp_path)
    second = pid()
    assert second != first
    monkeypatch.setenv("REVBENCH_OF_THIS_TEST", "1")
    assert _surroundings()[0] == str(tmp_path)
    assert _surroundings()[1] != here[1]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    psutil.Process(second).kill()
    psutil.Process(second).wait(10)
    assert pid() != second


def test_a_fork_leaves_it_to_its_parent() -> None:
    with kept_server({}) as server:
        server.environment()
    (mine,) = servers()
    child = os.fork()
    if child == 0:
        end_kept_server()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with kept_server({}) as server:
        server.environment()
        assert servers() == [mine]


SCRIPT = """
import revbench, psutil
for _ in range(2):
    row, = revbench.measure("revnet-38", "parameters")
    assert row.status == "ok"
print(*[child.pid for child in psutil.Process().children()])
"""


def test_it_ends_with_its_process() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (pid,) = map(int, done.stdout.split())
    assert not psutil.pid_exists(pid)
