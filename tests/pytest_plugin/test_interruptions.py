"""A run that is interrupted or killed is whole, and is resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from revbench.results.runs import ROWS, read_run
from tests.conftest import interruptible, run_command


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.Popen(
        interruptible("pytest", "--benchmark", "-k", "parameters", f"--revbench-output={out}"), cwd=folder,
        env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def wait_for_rows(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (out / ROWS).exists() and (out / ROWS).read_bytes().count(b'"kind": "row"') >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no rows in time")


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_an_interrupted_run_is_whole_and_is_resumed(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, out)
    try:
        wait_for_rows(out, 3)
        process.send_signal(how)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    before = read_run(out)
    assert 3 <= len(before.rows) < 27
    if how == signal.SIGINT:
        assert process.returncode == 2, said
        assert (out / "report.html").is_file()
        assert said.splitlines()[-1] == f"report: {out / 'report.html'}"
    done = run_command("--benchmark", "-k", "parameters", f"--revbench-resume={out}", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    after = read_run(out)
    assert after.rows[: len(before.rows)] == before.rows
    keys = [row.key for row in after.rows]
    assert len(keys) == len(set(keys)) == 27
    assert done.stdout.count("measured before") == len(before.rows)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [i * 0.8 for i in range(12)])
def test_a_kill_at_any_moment_loses_nothing(tmp_path: Path, delay: float) -> None:
    """From before the first byte of the journal to the last row and the report."""
    out = tmp_path / "out"
    process = start(tmp_path, out)
    time.sleep(delay)
    process.kill()
    process.communicate(timeout=60)
    before = read_run(out).rows if (out / ROWS).exists() else []
    how = f"--revbench-{'resume' if (out / ROWS).exists() else 'output'}={out}"
    done = run_command("--benchmark", "-k", "parameters", how, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    after = read_run(out).rows
    assert after[: len(before)] == before
    assert len({row.key for row in after}) == len(after) == 27
