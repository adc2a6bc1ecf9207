"""Processes as torchrun starts them, without its agent: faster, and each can be looked at and killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
