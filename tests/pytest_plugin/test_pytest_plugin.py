"""`pytest --benchmark` and plain `pytest`, as a user would call them, in projects of every temper."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from revbench.results.runs import read_run
from tests.conftest import ROOT, run_command

ONE = ("-k", "parameters and revnet-38 and not num_classes")
HOSTILE = {
    "pytest.ini": "[pytest]\naddopts = -k smoke -p no_such_plugin_at_all --maxfail=1\ntestpaths = nowhere\n",
    "conftest.py": "raise RuntimeError('a conftest that is not ours was loaded')\n",
    "bench_time.py": "raise RuntimeError('a suite that is not ours was loaded')\n",
    "typing_extensions_shadow.py": "",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def measured(folder: Path) -> list[str]:
    return [row.case.id for row in read_run(folder).rows]


def names(folder: Path) -> list[str]:
    return [b["fullname"] for b in json.loads((folder / "benchmark.json").read_text())["benchmarks"]]


def test_loading_the_plugin_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    script = (
        "import sys, pytest\n"
        "pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '.'])\n"
        "assert 'revbench.pytest_plugin' in sys.modules\n"
        "heavy = {'torch', 'pandas', 'numpy', 'matplotlib', 'revbench.case'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    empty = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert "AssertionError" not in empty.stderr, empty.stderr


def test_a_foreign_project_with_hostile_settings(tmp_path: Path) -> None:
    project = write(
        tmp_path / "project", {**HOSTILE, "pytest.ini": HOSTILE["pytest.ini"].replace("-p no_such_plugin_at_all ", "")}
    )
    done = run_command(
        "--benchmark", *ONE, "--revbench-output=out", "--junit-xml=out/junit.xml", cwd=project, PYTEST_ADDOPTS="-k nothing"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    properties = {
        p.get("name"): p.get("value") for p in ElementTree.parse(project / "out" / "junit.xml").iter("property")
    }
    said = "revnet-38,batch_size=1: parameters"
    assert properties == {f"{said} status": "ok", f"{said} parameters": "464890"}
    assert measured(project / "out") == ["revnet-38,batch_size=1"]
    assert done.stdout.splitlines()[-1] == f"report: {Path('out') / 'report.html'}"
    assert (project / "out" / "report.html").is_file()
    assert sorted(p.name for p in project.iterdir() if p.name != "out") == sorted(HOSTILE)  # no cache left behind


def test_plain_pytest_is_left_alone(tmp_path: Path) -> None:
    project = write(tmp_path, {"test_it.py": "def test_it(benchmark):\n    assert benchmark(lambda: 3) == 3\n"})
    done = run_command("-q", cwd=project)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert not (project / "reports").exists()


def test_a_users_own_suite_with_their_own_network(tmp_path: Path) -> None:
    suite = """
import pytest
from revbench import Case

CASES = [Case(model="mynet:make", strategy=name, batch_size=4) for name in ("stored", "reconstructed")]

@pytest.mark.parametrize("case", CASES, ids=str)
def test_mine(revbench, case):
    row = revbench.measure(case, "time", max_seconds=0.0)
    assert row.ok, row.message
    assert revbench.measure(case, "memory").metrics["peak_bytes"] > 0
"""
    network = """
import torch
from torch import nn
import revbench

def make():
    def half():
        return nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    chain = revbench.reversible([(half(), half()) for _ in range(3)])
    def batch(count, generator):
        return torch.randn(count, 16, generator=generator), torch.randn(count, 16, generator=generator)
    return chain, batch, nn.functional.mse_loss
"""
    project = write(tmp_path, {"test_suite.py": suite, "mynet.py": network})
    without = run_command("-q", cwd=project)
    assert without.returncode == 0
    assert "2 skipped" in without.stdout
    assert "revbench: nothing was measured; 2 tests measure only under --benchmark" in without.stdout
    done = run_command(
        "--benchmark",
        "test_suite.py",
        "--revbench-output=out",
        "--revbench-repeats=2",
        "--benchmark-min-rounds=7",
        "--benchmark-columns=median",
        cwd=project,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_run(project / "out").rows
    assert len(rows) == 8
    assert {(row.probe, row.repeat, row.case.strategy) for row in rows} == {
        (p, r, s) for p in ("time", "memory") for r in (1, 2) for s in ("stored", "reconstructed")
    }
    timed = [row for row in rows if row.probe == "time"]
    assert [row.repeat for row in timed] == [1, 1, 2, 2]  # launches interleave
    assert [row.metrics["cases_in_turn"] for row in timed] == [2] * 4  # and in each the strategies take turns
    assert len({row.metrics["session"] for row in timed}) == 2
    assert "measured before" not in done.stdout
    assert all(len(row.samples["step_seconds"]) == 7 for row in timed)
    assert set(names(project / "out")) == {
        "time::mynet:make,batch_size=4", "time::mynet:make,strategy=reconstructed,batch_size=4",
        "time::mynet:make,batch_size=4 (launch 2)", "time::mynet:make,strategy=reconstructed,batch_size=4 (launch 2)",
    }  # fmt: skip
    for name in names(project / "out"):  # and pytest-benchmark's table in the terminal has them too
        assert name.partition("::")[2] in done.stdout


def test_settings_of_a_project_and_marks_of_its_tests_count(tmp_path: Path) -> None:
    suite = """
import pytest
from revbench import Case

CASE = Case(model="revnet-38", image_size=8, batch_size=2)

@pytest.mark.benchmark(group="mine")
def test_marked(revbench):
    assert revbench.measure(CASE, "time").ok

def test_with_a_benchmark_of_its_own(revbench, benchmark):
    assert revbench.measure(CASE.replace(batch_size=4), "time").ok
    benchmark.pedantic(sum, args=([1, 2],), rounds=2)
"""
    settings = "[pytest]\naddopts = --benchmark-min-rounds=4 --benchmark-max-time=0.0\n"
    project = write(tmp_path, {"test_suite.py": suite, "pytest.ini": settings})
    done = run_command(
        "--benchmark", "test_suite.py", "--revbench-output=out", "--benchmark-json=theirs.json", cwd=project,
        PYTEST_ADDOPTS="--benchmark-warmup-iterations=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_run(project / "out").rows
    assert [len(row.samples["step_seconds"]) for row in rows] == [4, 4]
    assert {row.metrics["rounds"] for row in rows} == {4}
    marked, own = json.loads((project / "theirs.json").read_text())["benchmarks"]
    assert marked["group"] == "mine"
    assert marked["stats"]["data"] == list(rows[0].samples["step_seconds"])
    assert own["fullname"].endswith("test_with_a_benchmark_of_its_own")


def test_the_table_shows_what_the_worker_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_command(
        "--benchmark", "-k", "time and revnet-38 and reconstructed and not recomputed", f"--revbench-output={out}",
        "--benchmark-min-rounds=3", "--benchmark-max-time=0.01", f"--benchmark-json={tmp_path / 'theirs.json'}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_run(out).rows
    (theirs,) = json.loads((tmp_path / "theirs.json").read_text())["benchmarks"]
    assert theirs["stats"]["data"] == list(row.samples["step_seconds"])
    assert theirs["fullname"] == "time::revnet-38,strategy=reconstructed,batch_size=16"
    assert names(out) == [theirs["fullname"]]
    assert f"{len(row.samples['step_seconds'])} steps" in done.stdout
    assert "StdDev" not in done.stdout  # pytest-benchmark's wide table is shown when it is asked for
    *_, beside, closing, report = done.stdout.splitlines()
    assert report == f"report: {out / 'report.html'}"
    assert done.stdout.count("report.html") == 1
    assert beside.startswith("beside the report: ")
    assert "1 passed" in closing
    assert "of a budget of" in done.stdout


def test_no_case_selected_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path, {"test_none.py": "def test_none():\n    pass\n"})
    done = run_command(
        "--benchmark", "test_none.py", "-k", "nothing_is_called_so", "--revbench-output=out", cwd=tmp_path
    )
    assert done.returncode == 4
    assert "no case was selected" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_row_that_is_not_ok_is_shown_and_fails_nothing(tmp_path: Path) -> None:
    suite = """
from revbench import Case

def test_mine(revbench):
    revbench.measure(Case(model="revnet-38", batch_size=10**11), "time")
    revbench.measure(Case(model="revnet-38", batch_size=2, image_size=8), "flops")
"""
    project = write(tmp_path, {"test_suite.py": suite})
    done = run_command("--benchmark", "test_suite.py", "--revbench-output=out", "--junit-xml=found.xml", cwd=project)
    assert done.returncode == 0, done.stdout
    found = {p.get("name"): p.get("value") for p in ElementTree.parse(project / "found.xml").iter("property")}
    assert found["revnet-38,batch_size=100000000000: time status"] == "oom"
    assert float(found["revnet-38,batch_size=2,image_size=8: flops step_flops"] or 0) > 1e6
    assert "1 of 2 rows have no values: 1 oom" in done.stdout
    assert "What could not be measured" in (project / "out" / "report.html").read_text()


def test_a_wrong_case_in_a_users_suite_fails_its_test_in_one_line(tmp_path: Path) -> None:
    project = write(
        tmp_path,
        {
            "test_s.py": "from revbench import Case\n"
            "def test_m(revbench):\n    revbench.measure(Case(model='revnet-39'), 'time')\n"
        },
    )
    done = run_command("--benchmark", "test_s.py", "--revbench-output=out", cwd=project)
    assert done.returncode == 1
    assert "did you mean 'revnet-38'" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_terminal_shows_a_bar_while_something_trains(tmp_path: Path) -> None:
    import pty

    suite = """
from revbench import Case

def test_mine(revbench):
    case = Case(model="revnet-38", batch_size=2, image_size=8, training_steps=4, data="digits")
    revbench.measure(case, "training", data_path="digits", evaluations=1)
"""
    write(tmp_path, {"test_suite.py": suite})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--benchmark", "test_suite.py", "--revbench-output=out"], cwd=tmp_path,
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:  # Linux's way to say that the other end was closed
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    assert process.wait(timeout=60) == 0, said.decode(errors="replace")
    text = said.decode(errors="replace")
    assert "4/4" in text
    assert "loss" in text
    assert "validation error" in text


def test_a_bare_working_tree_without_an_installation(tmp_path: Path) -> None:
    """Only what is in the tree is found: no entry point is read, as on a machine where nothing was installed."""
    done = run_command(
        "-p", "revbench.pytest_plugin", "-p", "pytest_benchmark.plugin", "--benchmark", *ONE,
        f"--revbench-output={tmp_path / 'out'}", cwd=ROOT, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert measured(tmp_path / "out") == ["revnet-38,batch_size=1"]


@pytest.mark.slow
def test_the_plugin_named_twice_is_registered_once(tmp_path: Path) -> None:
    done = run_command("-p", "revbench.pytest_plugin", "--benchmark", *ONE, "--revbench-output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_collect_only_and_help_measure_nothing(tmp_path: Path) -> None:
    done = run_command("--benchmark", "--collect-only", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bench_drift.py::test_drift[revnet-38,strategy=reconstructed,dtype=float64,batch_size=16]" in done.stdout
    parts = []
    for part in ("1/2", "2/2"):
        shard = run_command("--benchmark", "--collect-only", f"--revbench-shard={part}", cwd=tmp_path)
        parts.append({line for line in shard.stdout.splitlines() if "::" in line})
    assert parts[0] | parts[1] == {line for line in done.stdout.splitlines() if "::" in line}
    assert not parts[0] & parts[1]
    assert min(map(len, parts)) > 10
    assert list(tmp_path.iterdir()) == []
    assert run_command("--benchmark", "--help", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "reports").exists()
