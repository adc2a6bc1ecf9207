"""``revbench doctor``: its table, its JSON, its exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import run_command

ROOT = Path(__file__).parents[2]
NETWORK = "tests.checkup.faulty:network"


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command("doctor", *arguments, cwd=ROOT, module="revbench")


def test_a_fault_ends_with_exit_code_1_and_the_mend() -> None:
    done = doctor(f"{NETWORK}(fault=masks)", "--check", "gradient", "--check", "dropout", "--check", "twin")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("passed      gradient")
    assert lines[1].startswith("failed      dropout                 4 masks in backward are not those of forward")
    assert lines[2].startswith("can't tell  twin")
    assert lines[4] == f"1 passed, 1 failed, 1 can't be told of {NETWORK}(fault=masks)"
    assert "  Mend: Set dropout to 0 inside the blocks, or move it outside." in lines


def test_json_and_exit_code_0() -> None:
    done = doctor(NETWORK, "--check", "gradient", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert [finding["verdict"] for finding in found["findings"]] == ["passed"]


def test_json_of_a_fault_has_the_mend_and_exit_code_1() -> None:
    done = doctor(f"{NETWORK}(fault=masks)", "--check", "dropout", "--json")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] is False
    (finding,) = found["findings"]
    assert (finding["check"], finding["verdict"]) == ("dropout", "failed")
    assert finding["mend"] == "Set dropout to 0 inside the blocks, or move it outside."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet-33"], "unknown model 'resnet-33'"),
        ([NETWORK, "--check", "masks"], "unknown check 'masks'"),
        (["revgpt-1m", "--coupling", "tides"], "unknown coupling 'tides'"),
    ],
)
def test_a_mistake_ends_with_exit_code_2(arguments: list[str], message: str) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
