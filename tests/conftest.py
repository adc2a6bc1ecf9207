from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from revbench.cli import main
from revbench.runner.client import WorkerServer

# Deterministic by default; `tox -e slow` draws more examples, and other ones each time.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("slow", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("REVBENCH_HYPOTHESIS_PROFILE", "default"))

ROOT = Path(__file__).resolve().parent.parent

# One thread in each process that the tests start, so that tests side by side (`-n 2`) take a core each: threads of two
# processes that wait for each other on the same cores make both ten times slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what networks draw from that use the global generator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def server() -> Iterator[WorkerServer]:
    with WorkerServer() as found:
        yield found


@pytest.fixture
def one_server(server: WorkerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that this process opens use the session's server instead of starting one, which takes seconds."""
    monkeypatch.setattr("revbench.runner.opening.WorkerServer", lambda: nullcontext(server))


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(one_server: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command line in this process, in an empty folder: exit code, what it printed, what it complained of."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["revbench", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def interruptible(module: str, *arguments: str) -> list[str]:
    """``python -m module arguments``, which Ctrl-C reaches also where a shell lets its background jobs ignore it."""
    program = (
        "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f" sys.argv[1:] = {list(arguments)!r}; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-c", program]


def run_command(
    *arguments: str, cwd: Path, timeout: float = 240, module: str = "pytest", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments`` as a user would: nothing of this test session's settings leaks in.

    But for a plugin of the tests' own environment, hypothesis's, which takes a second to import.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    clean["PYTEST_ADDOPTS"] = "-p no:hypothesispytest"
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env={**clean, **environment}, timeout=timeout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, and return what it says."""
    identity = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
