"""`revbench history`: runs in the order of time, machines apart, changes with what changed beside them, and its picture."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from revbench.case import Case
from revbench.compare.history import Histories, histories_of
from revbench.errors import UserError
from revbench.report.charts.history import history_picture
from revbench.results.frames import load_runs
from revbench.results.journal import Journal
from tests.conftest import Cli
from tests.report.reports import timed_row
from tests.results.rows import ACCELERATOR, ENVIRONMENT, make_row, write_run

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=16)
STORED = CASE.stored()


def environment(**packages: str) -> dict[str, Any]:
    found = copy.deepcopy(ENVIRONMENT)
    found["packages"] |= packages
    return found


def a_run(folder: Path, day: int, seconds: float, peak: int, of: Mapping[str, Any] = ENVIRONMENT) -> Path:
    started = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T00:00:00+00:00"
    rows = [make_row(case=CASE, probe="memory", metrics={"peak_bytes": peak}, samples={}, started=started)]
    for repeat, factor in enumerate((0.99, 1.0, 1.02), 1):
        row = timed_row(CASE, seconds * factor, repeat=repeat)
        rows.append(make_row(case=CASE, repeat=repeat, metrics=row.metrics, samples=row.samples, started=started))
    return write_run(folder, *rows, environment=of)


def thirty_runs(folder: Path) -> Path:
    """A new PyTorch makes the step longer at the twentieth run, something else the peak larger at the tenth."""
    noise = np.random.default_rng(0).normal(1.0, 0.01, 30)
    for day in reversed(range(30)):  # folders' names say nothing of the order
        of = environment(torch="2.6.0" if day < 20 else "2.7.0")
        a_run(folder / f"{99 - day}", day, (0.1 if day < 20 else 0.115) * noise[day], 1000 if day < 10 else 1001, of)
    return folder


def by_metric(found: Histories) -> dict[str, Any]:
    return {one.metric.name: one for one in found.found}


def test_changes_are_found_with_what_changed_beside_them(tmp_path: Path) -> None:
    found = by_metric(histories_of(thirty_runs(tmp_path)))
    step, peak = found["step_seconds"], found["peak_bytes"]
    assert [point.run for point in step.points] == [str(99 - day) for day in range(30)]
    assert {point.launches for point in step.points} == {3}
    (change,) = step.changes
    assert (change.run, change.outcome, dict(change.beside)) == ("79", "worse", {"PyTorch": ("2.6.0", "2.7.0")})
    assert change.after / change.before == pytest.approx(1.15, rel=0.01)
    (grew,) = peak.changes
    assert (grew.run, grew.before, grew.after, grew.outcome, dict(grew.beside)) == ("89", 1000, 1001, "worse", {})
    assert grew.by == "+0.1 %"


def test_machines_are_apart_and_a_new_driver_is_the_same_machine(tmp_path: Path) -> None:
    other = environment()
    other["cpu"] = {**other["cpu"], "model": "Another"}
    for day in range(4):
        a_run(tmp_path / f"a{day}", day, 0.1, 1000, environment(torch=f"2.{6 + day}.0"))
        a_run(tmp_path / "others" / f"b{day}", day, 0.1, 2000, other)
    found = histories_of(tmp_path, metrics=["peak_bytes"])
    assert found.runs == 8
    assert sorted((one.machine, len(one.points), one.points[0].value) for one in found.found) == [
        ("A <b>CPU</b>, 2 cores", 4, 1000), ("Another, 2 cores", 4, 2000),
    ]  # fmt: skip
    assert not any(one.changes for one in found.found)


def test_few_runs_of_what_scatters_can_tell_nothing(tmp_path: Path, cli: Cli) -> None:
    for day in range(5):
        a_run(tmp_path / "runs" / f"{day}", day, 0.1 if day < 3 else 0.9, 1000)
    assert [one.can_tell for one in histories_of(tmp_path / "runs", metrics=["step_seconds"]).found] == [False]
    code, out, _ = cli("history", str(tmp_path / "runs"), "--metric", "step_seconds")
    assert code == 0
    assert "5 runs, 1 metrics of cases: 0 changed, 1 have too few runs to tell a change from noise" in out


def test_the_command_writes_a_picture_and_json(tmp_path: Path, cli: Cli) -> None:
    folder = thirty_runs(tmp_path / "runs")
    code, out, err = cli("history", str(folder), "--output", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert "  worse from 79 on: 99.8 ms → 1" in out
    assert "beside PyTorch 2.6.0 → 2.7.0" in out
    ElementTree.fromstring((tmp_path / "out" / "history.svg").read_text())
    written = json.loads((tmp_path / "out" / "history.json").read_text())
    code, out, _ = cli("history", str(folder), "--json")
    assert json.loads(out) == written
    assert {one["metric"] for one in written["histories"]} == {"step_seconds", "peak_bytes"}
    assert [len(one["points"]) for one in written["histories"]] == [30, 30]


def test_metrics_and_cases_are_chosen(tmp_path: Path) -> None:
    row = make_row(case=STORED, probe="memory", metrics={"peak_bytes": 5, "backward_peak_bytes": 4}, samples={})
    write_run(tmp_path / "a", row, make_row(case=CASE, probe="memory", metrics={"peak_bytes": 6}, samples={}))
    found = histories_of(tmp_path, metrics=["memory.peak_bytes"], pattern="*strategy=reconstructed*")
    assert [(one.case, one.points[0].value) for one in found.found] == [(CASE, 6)]


def test_what_can_not_be_read_is_passed_over_with_a_word(tmp_path: Path, cli: Cli) -> None:
    a_run(tmp_path / "good", 1, 0.1, 1000)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "rows.jsonl").write_text('{"schema_version": 99}\n')
    (tmp_path / "link").symlink_to(tmp_path / "good")
    code, out, err = cli("history", str(tmp_path))
    assert code == 0
    assert "schema version 99" in err
    assert out.splitlines()[0].startswith("1 runs, 2 metrics of cases")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "is no folder"), (["."], "holds no run that can be read"),
        (["runs", "--metric", "peek_bytes"], "peak_bytes"),
        (["runs", "--metric", "memry.peak_bytes"], "memory"), (["runs", "--case", "vgg*"], "none of the 1 runs"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path: Path, cli: Cli, arguments: list[str], words: str) -> None:
    if arguments[0] == "runs":
        a_run(tmp_path / "runs" / "a", 1, 0.1, 1000)
    code, out, err = cli("history", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert words in err


def test_a_picture_of_one_run_and_of_a_level_of_zero(tmp_path: Path) -> None:
    for day, flops in enumerate((0, 0, 7)):
        started = f"2026-01-0{day + 1}T00:00:00+00:00"
        write_run(
            tmp_path / f"{day}",
            make_row(case=CASE, probe="flops", metrics={"step_flops": flops}, samples={}, started=started),
        )
    found = histories_of(tmp_path).found
    assert [change.by for change in found[0].changes] == [""]
    ElementTree.fromstring(history_picture(found))
    ElementTree.fromstring(history_picture(histories_of(tmp_path / "0").found))


def test_no_folder_is_an_error_of_the_function(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        histories_of(tmp_path)


def test_a_run_that_tells_little_of_its_machine_makes_no_others_alike(tmp_path: Path) -> None:
    """It is of the first machine that it may be; it was a link between all of them."""
    for day, revision in enumerate(("", "one", "two", "one")):
        of = environment()
        of["cpu"] |= {"revision": revision} if revision else {}
        a_run(tmp_path / f"{day}", day, 0.1, 1000 * (revision == "two") + 1000, of)
    found = histories_of(tmp_path, metrics=["peak_bytes"]).found
    assert sorted([point.run for point in one.points] for one in found) == [["0", "1", "3"], ["2"]]
    assert not any(one.changes for one in found)
    assert set(load_runs(tmp_path / "0", tmp_path / "1", tmp_path / "2").groupby("machine").size()) == {4, 8}


def test_what_is_the_same_but_for_one_run_is_no_change(tmp_path: Path) -> None:
    case = CASE.replace(device="cuda")
    of = environment()
    of["accelerators"] = [ACCELERATOR]
    for day, peak in enumerate((1000, 1005, 1005, 1006, 1005, 1005)):
        started = f"2026-01-0{day + 1}T00:00:00+00:00"
        row = make_row(case=case, probe="memory", metrics={"peak_bytes": peak}, samples={}, started=started)
        write_run(tmp_path / f"{day}", row, environment=of)
    assert [one.changes for one in histories_of(tmp_path).found] == [[]]


def test_a_value_without_a_logarithm_can_tell_nothing(tmp_path: Path) -> None:
    for day in range(20):
        a_run(tmp_path / f"{day}", day, 0.0 if day == 0 else 0.1, 1000)
    assert [one.can_tell for one in histories_of(tmp_path, metrics=["step_seconds"]).found] == [False]


def test_a_run_that_is_being_written_is_passed_over(tmp_path: Path) -> None:
    a_run(tmp_path / "a", 1, 0.1, 1000)
    a_run(tmp_path / "b", 2, 0.1, 1000)
    with closing(Journal(tmp_path / "b", resume=True)):
        found = histories_of(tmp_path)
    assert found.runs == 1
    assert "still writing" in found.notes[0]


def test_a_name_with_dollars_is_a_name(tmp_path: Path) -> None:
    of = environment()
    of["cpu"] |= {"model": r"EPYC $\frac$ x"}
    a_run(tmp_path / "a", 1, 0.1, 1000, of)
    ElementTree.fromstring(history_picture(histories_of(tmp_path).found))
