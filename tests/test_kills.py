"""500 kills at random moments: no row is lost or doubled, no process is left, nothing hangs."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from revbench.case import Case
from revbench.results.journal import Journal
from revbench.results.runs import ROWS, read_run
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session
from tests.conftest import ROOT

KILLS, LANES = 250, 2  # of each lane; lanes can be run side by side
CASES = [Case(model="revnet-38", batch_size=1, seed=seed) for seed in range(2000)]
END_SECONDS = 60.0

# Measures what is not there yet, and says each row once it is on disk.
MEASURE = """
import sys
from pathlib import Path
from revbench.results.journal import Journal
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session
from tests.test_kills import CASES

folder = Path(sys.argv[1])
journal = Journal(folder, resume=(folder / "rows.jsonl").exists())
with WorkerServer() as server:
    session = Session(journal, server, server.environment())
    for case in CASES:
        row = session.measure(case, "parameters")
        sys.stdout.write(f"{case.seed} {row.status}\\n")
        sys.stdout.flush()
"""


def family_of(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("lane", range(LANES))
def test_kills_at_random_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str], lane: int) -> None:
    draw = random.Random(lane)
    folder = tmp_path / "run"
    told: set[int] = set()
    struck = {"parent": 0, "server": 0, "worker": 0}
    for kill in range(KILLS):
        out = (tmp_path / "out").open("w+")
        process = subprocess.Popen(
            [sys.executable, "-c", MEASURE, str(folder)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        if draw.random() < 0.2:
            time.sleep(draw.uniform(0.05, 3))  # while it starts
        else:
            deadline = time.monotonic() + END_SECONDS
            while not os.fstat(out.fileno()).st_size and process.poll() is None:
                assert time.monotonic() < deadline, f"nothing is measured after kill {kill}"
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.5))  # while it measures
        family = family_of(process.pid)
        who = draw.choice(("parent", "parent", "server", "worker"))
        victim = family[min(("parent", "server", "worker").index(who), len(family) - 1)] if family else None
        number = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        if victim is not None:
            struck[("parent", "server", "worker")[min(family.index(victim), 2)]] += 1
            with contextlib.suppress(psutil.Error):
                victim.send_signal(number)
            goes_on = who != "parent" and draw.random() < 0.3  # as it does after a server's or a worker's end
            time.sleep(draw.uniform(0.5, 4) if goes_on else draw.uniform(0, 0.3))
            family += [one for one in family_of(process.pid) if one not in family]
        process.kill()  # if it was another that was struck, it went on
        process.wait(timeout=END_SECONDS)
        deadline = time.monotonic() + END_SECONDS
        while left := [one for one in family if alive(one)]:
            assert time.monotonic() < deadline, f"kill {kill} of {who} left {left}"
            time.sleep(0.05)
        out.seek(0)
        told |= {int(line.split()[0]) for line in out.read().splitlines(keepends=True) if line.endswith("\n")}
        out.close()
        assert not told or (folder / ROWS).exists(), f"kill {kill} lost all rows"
        if (folder / ROWS).exists():
            keys = [row.key for row in read_run(folder).rows]
            assert len(set(keys)) == len(keys), f"kill {kill} doubled a row"
            assert told <= {row.case.seed for row in read_run(folder).rows}, f"kill {kill} lost a row"
    journal = Journal(folder, resume=True)
    with WorkerServer() as server:
        session = Session(journal, server, server.environment(), retry=True)
        rows = [session.measure(case, "parameters") for case in CASES[: len(told) + 20]]
    journal.close()
    assert all(row.ok for row in rows)
    with capsys.disabled():
        print(f"{KILLS} kills {struck}: {len(told)} rows told of, none lost, none doubled")
