from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from revbench.runner.client import WorkerServer

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def server() -> Iterator[WorkerServer]:
    with WorkerServer() as found:
        yield found


def run_command(
    *arguments: str, cwd: Path, timeout: float = 240, module: str = "pytest", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments`` as a user would: nothing of this test session's settings leaks in."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env={**clean, **environment}, timeout=timeout,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
