from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import revbench
from revbench.case import Case
from revbench.errors import UserError
from revbench.results.journal import Journal, series_stem
from revbench.results.runs import read_run
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session, check_device, result_of
from tests.results.rows import ENVIRONMENT, make_row


def test_measure_returns_and_writes_rows(tmp_path: Path) -> None:
    case = revbench.Case(model="revnet-38", strategy="reconstructed", batch_size=2, image_size=8)
    rows = revbench.measure(case, ("parameters", "memory", "flops"), output=tmp_path / "run")
    assert [row.status for row in rows] == ["ok"] * 3
    run = read_run(tmp_path / "run")
    assert [row.key for row in run.rows] == [row.key for row in rows]
    assert max(run.series(run.rows[1])["live_bytes"]) == rows[1].metrics["peak_bytes"]  # type: ignore[type-var]
    frame = revbench.load_runs(tmp_path / "run")
    assert frame.loc[frame.probe == "parameters", "parameters"].item() == 464_890
    assert set(frame.strategy) == {"reconstructed"}
    assert len(revbench.load_runs([tmp_path / "run", tmp_path / "run" / "rows.jsonl"])) == 6


def test_nothing_is_measured_twice(tmp_path: Path, server: WorkerServer) -> None:
    case = revbench.Case(model="revnet-38", batch_size=2)
    environment = server.environment()
    journal = Journal(tmp_path)
    first = Session(journal, server, environment).measure(case, "parameters")
    journal.close()
    journal = Journal(tmp_path, resume=True)
    session = Session(journal, server, environment)
    again = session.measure(case, "parameters")
    assert again.started == first.started
    assert session.replayed == 1
    assert session.remark(again) == "  (measured before)"
    assert session.remark(session.measure(case, "parameters", repeat=2)) == ""
    journal.close()
    assert [row.repeat for row in read_run(tmp_path).rows] == [1, 2]


def test_what_failed_is_tried_again_if_asked_for(tmp_path: Path, server: WorkerServer) -> None:
    """A worker that somebody killed, say; what the network does not support stays as it is."""
    case = revbench.Case(model="revnet-38", batch_size=2)
    journal = Journal(tmp_path)
    environment = server.environment()
    ours = {"environment_id": journal.add_environment(environment), "case": case, "probe": "parameters", "options": {}}
    none = {"metrics": {}, "samples": {}}
    journal.add_rows([make_row(**ours, **none, repeat=i, status=s) for i, s in ((1, "crashed"), (2, "unsupported"))])
    for retry, statuses in ((False, ["crashed", "unsupported"]), (True, ["ok", "unsupported"])):
        session = Session(journal, server, environment, retry=retry)
        rows = [session.measure(case, "parameters", repeat=i) for i in (1, 2)]
        assert [row.status for row in rows] == statuses
        said = (
            ("", "  (measured before)") if retry else ("  (before; --retry measures it again)", "  (measured before)")
        )
        assert tuple(map(session.remark, rows)) == said
    journal.close()
    assert [row.status for row in read_run(tmp_path).rows] == ["crashed", "unsupported", "ok"]
    journal = Journal(tmp_path, resume=True)
    assert Session(journal, server, environment, retry=True).measure(case, "parameters").ok
    assert len(journal.run.rows) == 3
    journal.close()


@pytest.mark.parametrize("value", [math.nan, -math.inf, {"a": 1}, [math.nan], [[1]]])
def test_an_option_that_no_row_can_hold(tmp_path: Path, server: WorkerServer, value: object) -> None:
    journal = Journal(tmp_path / "out")
    session = Session(journal, server, server.environment())
    with pytest.raises(UserError, match=r"max_seconds=.* of probe time must be a finite number, a word, or a list"):
        session.measure(revbench.Case(model="revnet-38"), "time", options={"max_seconds": value})
    journal.close()
    assert not (tmp_path / "out").exists()


def test_other_options_are_another_measurement(tmp_path: Path, server: WorkerServer) -> None:
    case = revbench.Case(model="revnet-38", batch_size=2, image_size=8)
    journal = Journal(tmp_path)
    session = Session(journal, server, server.environment())
    plain = session.measure(case, "memory")
    short = session.measure(case, "memory", options={"timeline": False})
    assert (plain.series is None, short.series is None) == (False, True)
    assert session.measure(case, "memory") == plain
    assert session.measure(case, "memory", options={"timeline": False}) == short
    assert session.replayed == 0  # they are of this session
    journal.close()
    journal = Journal(tmp_path, resume=True)
    resumed = Session(journal, server, server.environment())
    assert resumed.measure(case, "memory", options={"timeline": False}) == short
    assert resumed.replayed == 1
    journal.close()
    assert len(read_run(tmp_path).rows) == 2


def test_cases_that_are_measured_together(tmp_path: Path, server: WorkerServer) -> None:
    cases = [
        revbench.Case(model="revnet-38", batch_size=2, image_size=8, strategy=s) for s in ("stored", "reconstructed")
    ]
    journal = Journal(tmp_path)
    session = Session(journal, server, server.environment())
    options = {"min_rounds": 3, "max_seconds": 0, "warmup_rounds": 0}
    rows = session.measure_together(cases, "time", options=options)
    assert [row.case for row in rows] == cases
    assert [len(row.samples["step_seconds"]) for row in rows] == [3, 3]
    assert [row.metrics["cases_in_turn"] for row in rows] == [2, 2]
    assert rows[0].metrics["session"] == rows[1].metrics["session"]
    assert session.measure_together(cases, "time", options=options) == rows
    assert session.measure(cases[1], "time", options=options) == rows[1]
    assert session.replayed == 0  # they are of this session
    third = cases[0].replace(strategy="checkpointed")
    again = session.measure_together([*cases, third], "time", options=options)
    assert again[:2] == rows  # what is there stays as it is
    assert again[2].metrics["session"] != rows[0].metrics["session"]
    with pytest.raises(UserError, match="threads can't be measured in one process"):
        session.measure_together([cases[0], third.replace(threads=1)], "time")
    with pytest.raises(UserError, match="probe memory measures one case; give it to measure"):
        session.measure_together(cases, "memory")
    journal.close()
    assert [row.case for row in read_run(tmp_path).rows] == [*cases, third]


def test_mistakes_leave_no_row(tmp_path: Path, server: WorkerServer) -> None:
    journal = Journal(tmp_path)
    session = Session(journal, server, server.environment())
    for case, probe in (
        (revbench.Case(model="revnet-38", batch_size=0), "time"),
        (revbench.Case(model="revnet-38"), "speed"),
        (revbench.Case(model="revnet-38", device="tpu"), "time"),
    ):
        with pytest.raises(UserError):
            session.measure(case, probe)
    assert read_run(tmp_path).rows == []
    journal.close()


def test_check_device() -> None:
    check_device("cuda:1", {"accelerators": [{}, {}]})
    for device, accelerators in (("cuda", 0), ("cuda:2", 2), ("cuda:x", 2)):
        with pytest.raises(UserError, match="not there"):
            check_device(device, {"accelerators": [{}] * accelerators})


def test_an_unguarded_script_works(tmp_path: Path) -> None:
    """Workers never import the user's ``__main__``."""
    script = tmp_path / "script.py"
    script.write_text(
        "import revbench\n"
        "rows = revbench.measure(revbench.Case(model='revnet-38', batch_size=2), ('parameters',))\n"
        "print(rows[0].metrics['parameters'])\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["464890"]


class Answers:
    """A server that answers what it is told to."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)

    def measure(self, cases: list[Case], probe: str, **settings: Any) -> dict[str, Any]:
        status = self.statuses.pop(0)
        found = [{"status": "ok", "metrics": {"weights_sha256": "abc"}}]
        return (
            {"status": status, "measurements": found} if status == "ok" else {"status": status, "message": "so it was"}
        )


@pytest.mark.parametrize("status", ["oom", "timeout", "crashed"])
@pytest.mark.parametrize("left_a_checkpoint", [True, False])
def test_a_training_that_died_is_gone_on_with_if_it_left_a_checkpoint(
    tmp_path: Path, status: str, left_a_checkpoint: bool
) -> None:
    case = Case(model="revnet-38", data="digits", training_steps=5)
    checkpoint = tmp_path / "checkpoints" / f"{series_stem((case.id, 'training', 1, ''))}.pt"
    journal = Journal(tmp_path)
    first = Session(journal, Answers(status), ENVIRONMENT).measure(case, "training")  # type: ignore[arg-type]
    assert first.status == status
    journal.close()
    if left_a_checkpoint:
        checkpoint.parent.mkdir()
        checkpoint.touch()
    journal = Journal(tmp_path, resume=True)
    second = Session(journal, Answers("ok"), ENVIRONMENT).measure(case, "training")  # type: ignore[arg-type]
    journal.close()
    assert [row.status for row in read_run(tmp_path).rows] == [status, "ok"][: 1 + left_a_checkpoint]
    assert second.ok == left_a_checkpoint
    assert not checkpoint.exists()
    journal = Journal(tmp_path, resume=True)
    third = Session(journal, Answers(), ENVIRONMENT).measure(case, "training")  # type: ignore[arg-type]
    journal.close()
    assert third == second  # measured no more


def test_what_else_a_machine_did_stands_behind_a_time() -> None:
    quiet = make_row()
    busy = dataclasses.replace(quiet, metrics={**quiet.metrics, "other_cpu_cores": 1.02})
    assert result_of(busy) == f"{result_of(quiet)}; other processes kept 1.0 cores busy"
