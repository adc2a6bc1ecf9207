"""Thresholds that a test carries as a mark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import revbench
from revbench.case import Case
from revbench.errors import UserError
from revbench.pytest_plugin.marks import MarkedThresholds
from revbench.results.runs import read_run
from tests.conftest import run_command
from tests.results.rows import make_row, write_run

CASE = Case(model="revnet-38", batch_size=2)
SUITE = """
import pytest
from revbench import Case

pytestmark = pytest.mark.revbench_fail_on({of_module!r})


@pytest.mark.parametrize("case", [Case(model="revnet-38", batch_size=2), Case(model="resnet-32", batch_size=2)], ids=str)
@pytest.mark.revbench_fail_on({of_test!r})
def test_marked(revbench, case):
    revbench.measure(case, "flops")


def test_that_measures_nothing():
    pass
"""
GATE = ("--benchmark", "bench_mine.py", "--revbench-baseline=before", "--revbench-output=out")


@pytest.fixture
def before(tmp_path: Path, one_server: None) -> Path:
    """A baseline on this machine that has one of two cases, which took far fewer operations."""
    (row,) = revbench.measure(CASE, "flops", output=str(tmp_path / "measured"))
    run = read_run(tmp_path / "measured")
    few = replace(row, metrics={**row.metrics, "step_flops": 1000})
    return write_run(tmp_path / "before", few, environment=run.environments[row.environment_id])


def test_its_thresholds_are_for_the_cases_that_it_measures(tmp_path: Path, before: Path) -> None:
    """A limit also for the one that is new; the nearest mark counts, and the command line before all."""
    (tmp_path / "bench_mine.py").write_text(SUITE.format(of_module="step_flops > 0%", of_test="step_flops > 1000"))
    done = run_command(*GATE, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads((tmp_path / "out" / "gate.json").read_text())["findings"]
    limited = {f["case_id"]: f["outcome"] for f in found if f["words"]}
    assert limited == {"revnet-38,batch_size=2": "worse", "resnet-32,batch_size=2": "worse"}
    changed = [f for f in found if not f["words"]]
    assert [(f["metric"], f["outcome"], f["gated"]) for f in changed if f["gated"]] == [("step_flops", "worse", True)]
    loose = run_command(*GATE[:-1], "--revbench-resume=out", "--revbench-fail-on=step_flops > 1e12%", cwd=tmp_path)
    found = json.loads((tmp_path / "out" / "gate.json").read_text())["findings"]
    assert loose.returncode == 1  # the mark's limit holds
    assert [f["outcome"] for f in found if not f["words"] and f["gated"]] == ["same"]


@dataclass
class Item:
    """A test as pytest collects it: its marks, the nearest first."""

    marks: list[pytest.Mark]
    nodeid: str = "bench_mine.py::test_mine[revnet-38]"
    fixturenames: tuple[str, ...] = ("revbench",)

    def iter_markers(self, name: str) -> Iterator[pytest.Mark]:
        return (mark for mark in self.marks if mark.name == name)


def item(*thresholds: object, **changes: Any) -> Any:
    return Item([pytest.mark.revbench_fail_on(text).mark for text in thresholds], **changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (item("speed > 3%"), "bench_mine.py::test_mine: threshold 'speed > 3%'"),
        (item(3), "bench_mine.py::test_mine: give the mark revbench_fail_on thresholds"),
        (Item([pytest.mark.revbench_fail_on.mark]), "give the mark revbench_fail_on thresholds"),
        (
            Item([pytest.mark.revbench_fail_on("peak_bytes > 3%", most=3).mark]),
            "give the mark revbench_fail_on thresholds",
        ),
    ],
)
def test_a_mark_that_holds_something_else_is_named_with_its_test(given: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        MarkedThresholds().read([given])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nearest_mark_comes_last_and_only_of_what_was_measured() -> None:
    marked = MarkedThresholds()
    one = item("peak_bytes > 1%", "peak_bytes > 2%", "step_flops @ resnet* > 3%", nodeid="a.py::test_one[x]")
    other = item("step_flops @ resnet* > 3%", nodeid="a.py::test_one[y]")
    marked.read([one, other, item("nothing", fixturenames=())])
    resnet = CASE.replace(model="resnet-32", device="cuda:1")
    marked.measured(one, [make_row(case=CASE, probe=probe) for probe in ("memory", "flops", "time")])
    marked.measured(other, [make_row(case=resnet, probe="flops"), make_row(case=resnet, probe="memory")])
    assert [(found.text, found.pattern) for found in marked.thresholds()] == [
        ("peak_bytes > 2%", CASE.id), ("peak_bytes > 1%", CASE.id),
        ("step_flops @ resnet* > 3%", resnet.replace(device="cuda").id),
    ]  # fmt: skip


def test_a_threshold_of_what_its_test_does_not_measure_is_a_mistake() -> None:
    marked = MarkedThresholds()
    given = item("peak_bytes > 5%")
    marked.read([given])
    marked.measured(given, [make_row(case=CASE, probe="flops")])
    with pytest.raises(UserError, match=r"bench_mine\.py::test_mine: its threshold 'peak_bytes > 5%' is for nothing"):
        marked.thresholds()


def test_a_mistake_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "bench_mine.py").write_text(SUITE.format(of_module="step_flops > 0%", of_test="speed > 3%"))
    done = run_command("--benchmark", "bench_mine.py", "--revbench-output=out", cwd=tmp_path)
    assert done.returncode == 4
    assert "bench_mine.py::test_marked: threshold 'speed > 3%'" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "rows.jsonl").exists()
