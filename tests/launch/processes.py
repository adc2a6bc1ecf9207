"""Processes as torchrun starts them, without its agent: faster, and each can be looked at and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import ROOT

Process = subprocess.Popen[str]


@contextmanager
def started(*arguments: str, cwd: Path, world_size: int = 2) -> Iterator[list[Process]]:
    """``python -m revbench arguments`` as the processes of every rank; none is left behind."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_", "TORCHELASTIC_"))}
    common = {
        "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "revbench", *arguments], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**clean, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world_size)
    ]  # fmt: skip
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@contextmanager
def running(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Process]:
    """One process, whose complaints can be read; it is not left behind."""
    process = subprocess.Popen(command, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_a_checkpoint(folder: Path, newer_than: float = 0.0) -> float:
    """Until the run of this folder has one; returns when it was written."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in (folder / "checkpoints").glob("*[0-9].pt"):
            with suppress(FileNotFoundError):  # it is just being replaced
                if (written := path.stat().st_mtime) > newer_than:
                    return written
        time.sleep(0.02)
    raise AssertionError("no checkpoint in time")


def ends(process: Process, timeout: float = 90) -> tuple[int, str, str]:
    """Exit code, what was printed and what was complained of."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def _free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def kill_worker(process: subprocess.Popen[Any]) -> None:
    """Kill the worker of a process (the child of its child, the server) as the kernel would."""
    (server,) = psutil.Process(process.pid).children()
    (worker,) = server.children()
    os.kill(worker.pid, signal.SIGKILL)
