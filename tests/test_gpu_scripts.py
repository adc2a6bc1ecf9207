"""The scripts for a GPU machine that is lent for minutes, with a Python that only notes what it is asked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Notes its arguments; makes rows where a run goes; fails or hangs where a variable names a word of the command.
PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$NOTES"
for word in "$@"; do
  case $word in --revbench-output=*|--revbench-resume=*)
    mkdir -p "${word#*=}" && touch "${word#*=}/rows.jsonl"
    [ -z "${CRASHES:-}" ] || [[ "$*" != *"$CRASHES"* ]] || echo '{"status": "crashed"}' >> "${word#*=}/rows.jsonl" ;;
  esac
done
[ -n "${FAILS:-}" ] && [[ "$*" == *"$FAILS"* ]] && { echo "it failed: $FAILS"; exit 3; }
[ -n "${HANGS:-}" ] && [[ "$*" == *"$HANGS"* ]] && exec sleep 60
exit 0
"""
Call = Callable[..., tuple[subprocess.CompletedProcess[str], list[str]]]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Calls a script; what it said, and the commands that it ran."""
    stub = tmp_path / "bin" / "python3"
    stub.parent.mkdir()
    stub.write_text(PYTHON)
    stub.chmod(0o755)
    notes = tmp_path / "notes"

    def run(script: str, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        notes.write_text("")
        path = f"{stub.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", str(ROOT / "reports" / script), str(tmp_path / "out"), *arguments], text=True, capture_output=True,
            env={**os.environ, "PATH": path, "NOTES": str(notes), **environment}, timeout=120, check=False,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done, notes.read_text().splitlines()

    return run


def test_every_stage_once_and_the_riskiest_first(call: Call, tmp_path: Path) -> None:
    done, commands = call("measure-on-gpu.sh")
    assert done.returncode == 0, done.stdout
    order = [
        "import filelock", "test_contract", "-k time_and_memory", "-m cuda tests", "-k test_depth", "doctor revgpt-1m",
        "bench_couplings", "bench_time", "bench_memory", "bench_energy", "bench_drift", "--probe nvml", "revnet-104", "--compile",
        "--revbench-repeats=5", "not (iso_memory",
    ]  # fmt: skip
    found = [next(i for i, command in enumerate(commands) if word in command) for word in order]
    assert found == sorted(found)
    out = tmp_path / "out"
    assert f"--junitxml={out}/stages/cuda.xml" in next(c for c in commands if "-m cuda tests " in c)
    # One run folder for the quick tier, begun once and gone on with.
    into = [word for command in commands for word in command.split() if word.endswith(f"={out}")]
    assert into == [f"--revbench-output={out}", *[f"--revbench-resume={out}"] * 5]
    codes = [line.split("\t") for line in (out / "stages" / "exit-codes.tsv").read_text().splitlines()]
    assert len(codes) == len(commands)
    assert {code for _, code, _ in codes} == {"0"}
    done, commands = call("measure-on-gpu.sh")
    assert (done.returncode, commands) == (0, [])


def test_a_stage_that_fails_stops_no_other_and_is_done_again_if_asked(call: Call, tmp_path: Path) -> None:
    done, commands = call("measure-on-gpu.sh", FAILS="bench_energy")
    assert done.returncode == 1
    assert any("bench_drift" in command for command in commands)
    assert "energy: failed with exit code 3:\nit failed: bench_energy" in done.stdout
    assert "energy\t3\t" in (tmp_path / "out" / "stages" / "exit-codes.tsv").read_text()
    done, commands = call("measure-on-gpu.sh")
    assert (done.returncode, commands) == (1, [])
    done, commands = call("measure-on-gpu.sh", AGAIN="1")
    assert done.returncode == 0
    (command,) = commands
    assert f"--revbench-resume={tmp_path / 'out'} --revbench-retry suites/bench_energy.py" in command


def test_a_run_with_rows_that_crashed_is_not_done(call: Call) -> None:
    """Pytest and the command line end well if anything could be measured."""
    done, _ = call("measure-on-gpu.sh", CRASHES="bench_drift.py")
    assert done.returncode == 1
    assert "drift: 1 of its measurements crashed" in done.stdout
    assert "quick: done" in done.stdout  # its own rows did not
    assert call("measure-on-gpu.sh", AGAIN="1")[0].returncode == 0


@pytest.mark.slow
def test_tests_that_are_cut_off_are_not_begun_for_ever(call: Call) -> None:
    done, _ = call("measure-on-gpu.sh", "6", HANGS="tests/test_contract.py")
    assert done.returncode == 75
    assert "contract: failed with exit code 124" in done.stdout
    done, commands = call("measure-on-gpu.sh")
    assert done.returncode == 1
    assert not any("test_contract" in command for command in commands)


def test_nothing_is_begun_where_a_package_is_missing(call: Call) -> None:
    done, commands = call("measure-on-gpu.sh", FAILS="import filelock")
    assert (done.returncode, len(commands)) == (1, 1)


def test_a_call_ends_in_time_and_the_next_one_goes_on(call: Call, tmp_path: Path) -> None:
    """Also where a stage fails meanwhile: there is more to do all the same."""
    done, commands = call("measure-on-gpu.sh", "7", FAILS="tests/probes/test_cuda.py -k", HANGS="bench_memory.py")
    assert done.returncode == 75, done.stdout
    assert "memory: cut off after " in done.stdout
    assert "energy: put off, " in done.stdout
    assert "call again with the same folder to go on" in done.stdout
    assert "bench_memory.py" in commands[-1]
    done, commands = call("measure-on-gpu.sh")
    assert done.returncode == 1  # the failed one is not done again
    assert f"--revbench-resume={tmp_path / 'out'} suites/bench_memory.py" in commands[0]


def test_the_trainings(call: Call, tmp_path: Path) -> None:
    done, commands = call("train-on-gpu.sh", "CIFAR-10=/data", "500")
    assert done.returncode == 0, done.stdout
    assert "-m cuda tests/training" in commands[1]
    assert [command.split()[-1] for command in commands[2:]] == [
        f"{tmp_path / 'out'}-none",
        f"{tmp_path / 'out'}-bfloat16",
        f"{tmp_path / 'out'}-text",
    ]
    assert "train --pair revgpt-20m --steps 500 --drift-every 100" in commands[4]
    for command in commands[2:4]:
        assert "train --pair 38 --steps 500 --data CIFAR-10=/data --drift-every 100" in command
        assert "--output" in command
    (tmp_path / "out-none").mkdir()
    (tmp_path / "out-none" / "rows.jsonl").touch()
    (tmp_path / "out" / "stages" / "training-none.done").unlink()
    done, commands = call("train-on-gpu.sh", "CIFAR-10=/data", "500")
    assert [command.split()[-2:] for command in commands] == [["--resume", f"{tmp_path / 'out'}-none"]]


@pytest.mark.parametrize("script", ["measure-on-gpu.sh", "train-on-gpu.sh"])
def test_what_the_how_to_names_is_in_the_repository(script: str) -> None:
    assert f"reports/{script}" in (ROOT / "docs" / "how-to.md").read_text()
    listed = subprocess.run(["git", "ls-files", "reports"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no clone")
    assert f"reports/{script}" in listed.stdout.split()
    assert os.access(ROOT / "reports" / script, os.X_OK)
