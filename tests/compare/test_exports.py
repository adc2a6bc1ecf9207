"""Exports, each held to its consumer's own documented format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.results.journal import Journal
from tests.conftest import Cli
from tests.report.reports import memory, timed_row
from tests.results.rows import ENVIRONMENT, make_row, write_run

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=16)
EVIL = Case(model="<b>:`x`", batch_size=1)


def a_run(folder: Path) -> Path:
    fit = {"largest_batch_size": 9, "predicted_peak_bytes": 60, "margin": 0.0}
    return write_run(
        folder, *(timed_row(CASE, seconds, repeat=i) for i, seconds in enumerate((0.1, 0.3, 0.2), 1)),
        make_row(case=CASE, probe="memory", metrics={**memory(8 << 20), "nvml_process_bytes": None}, samples={}),
        make_row(case=CASE, probe="fit", metrics=fit, samples={}), timed_row(EVIL, 1.0),
        make_row(case=EVIL, probe="memory", status="oom", metrics={}, samples={}, message="no"),
    )  # fmt: skip


def exported(cli: Cli, folder: Path, form: str) -> Any:
    code, out, err = cli("export", str(a_run(folder)), "--format", form)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_github_action_benchmark(cli: Cli, tmp_path: Path) -> None:
    """An array of objects with a name, a unit, a number, and maybe a range and more words: its README, "Custom benchmarks"."""
    smaller = exported(cli, tmp_path / "a", "customSmallerIsBetter")
    bigger = exported(cli, tmp_path / "b", "customBiggerIsBetter")
    for entry in (*smaller, *bigger):
        assert {"name", "unit", "value"} <= set(entry) <= {"name", "unit", "value", "range", "extra"}
        assert isinstance(entry["value"], (int, float))
        assert all(isinstance(entry[key], str) and entry[key] for key in set(entry) - {"value"})
    assert len({entry["name"] for entry in smaller}) == len(smaller)
    by_name = {entry["name"]: entry for entry in (*smaller, *bigger)}
    step = by_name[f"{CASE.id}: time step_seconds"]
    assert (step["value"], step["unit"], step["range"]) == (0.2, "seconds", "± 0.1")
    assert step["extra"] == "median of 3 launches, 0.1 to 0.3"
    assert by_name[f"{CASE.id}: memory peak_bytes"]["unit"] == "bytes"
    assert [entry["name"] for entry in bigger] == [f"{CASE.id}: fit largest_batch_size"]
    assert not any("nvml" in name for name in by_name)  # it could not be had
    assert not any(entry["name"].startswith(EVIL.id) and "memory" in entry["name"] for entry in smaller)


def test_bencher(cli: Cli, tmp_path: Path) -> None:
    """An object of benchmarks, each an object of measures with a value and maybe two ends: its JSON schema, version 0."""
    found = exported(cli, tmp_path / "a", "bmf")
    for name, measures in found.items():
        assert 0 < len(name) <= 1024
        for measure, values in measures.items():
            assert 0 < len(measure) <= 64
            assert {"value"} <= set(values) <= {"value", "lower_value", "upper_value"}
            assert all(isinstance(value, (int, float)) for value in values.values())
    assert found[f"time: {CASE.id}"]["step_seconds"] == {"value": 0.2, "lower_value": 0.1, "upper_value": 0.3}
    assert found[f"memory: {CASE.id}"]["steady_bytes"] == {"value": 1000.0}
    assert found[f"time: {CASE.id}"]["cases_in_turn"]["value"] == 3  # all that are numbers


def test_unlike_machines_are_never_in_one_number(cli: Cli, tmp_path: Path) -> None:
    other = {**ENVIRONMENT, "environment_id": "00000000beef", "cpu": {**ENVIRONMENT["cpu"], "capability": "AVX512"}}
    folder = a_run(tmp_path / "run")
    journal = Journal(folder, resume=True)
    journal.add_environment(other)
    journal.add_row(timed_row(CASE, 9.0, environment_id="00000000beef"))
    journal.close()
    found = json.loads(cli("export", str(folder), "--format", "bmf")[1])
    steps = {
        name: one["step_seconds"]["value"]
        for name, one in found.items()
        if name.endswith(CASE.id) and "step_seconds" in one
    }
    name = "A <b>CPU</b>, 2 cores, torch 2.6"
    assert steps == {f"time: {name}, AVX2: {CASE.id}": 0.2, f"time: {name}, AVX512: {CASE.id}": 9.0}


def test_to_a_file_and_mistakes(cli: Cli, tmp_path: Path) -> None:
    run = str(a_run(tmp_path / "run"))
    assert cli("export", run, "--format", "bmf", "--output", "out.json")[:2] == (0, "")
    assert json.loads((tmp_path / "out.json").read_text())
    empty = str(write_run(tmp_path / "empty", make_row(case=CASE, status="oom", metrics={}, samples={})))
    for arguments, words in (
        ((run, "--format", "csv"), "format 'csv'"), ((run,), "--format"), ((empty, "--format", "bmf"), "has no metric for bmf"),
        ((str(tmp_path / "nowhere"), "--format", "bmf"), "nowhere"),
    ):  # fmt: skip
        code, _, err = cli("export", *arguments)
        assert code == 2
        assert words in err
