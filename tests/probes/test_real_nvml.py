"""nvidia-ml-py itself, on a library of the driver's name that a C compiler makes here: structs, sizes, versions, errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT, run_command

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler makes the stub of NVML")

_ASK = """
import json, os, sys
from revbench.probes.nvml import Gpu, driver_version, gpus_of_driver, joined
found = {}
for word in sys.argv[1:]:
    os.environ["STUB_NVML"] = word
    with Gpu("d6a1") as gpu:
        readings = {name: getattr(gpu, name)() for name in (
            "process_bytes", "other_processes", "device_bytes", "energy_joules", "power_limit_watts")}
        readings["large"] = gpu.process_bytes(least=5000)
        found[word] = {"uuid": gpu.uuid, **readings, **joined([gpu.clocks()])}
    found[word] |= {"driver": driver_version(), "gpus": gpus_of_driver()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libnvidia-ml.so.1"
    assert COMPILER is not None
    subprocess.run(
        [
            COMPILER,
            "-shared",
            "-fPIC",
            "-w",
            "-Wl,-soname,libnvidia-ml.so.1",
            "-o",
            library,
            Path(__file__).parent / "stub_nvml.c",
        ],
        check=True,
    )
    return folder


def variables(stub: Path) -> dict[str, str]:
    """With which a process finds the stub, and whatever else it finds."""
    path = os.pathsep.join(filter(None, [str(stub), os.environ.get("LD_LIBRARY_PATH", "")]))
    return {"LD_LIBRARY_PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def told(stub: Path) -> dict[str, dict[str, Any]]:
    words = "nothing mig divided mismatch permission nobody hidden zero namespace energy older".split()  # noqa: SIM905
    command = [sys.executable, "-c", _ASK, *words]
    done = subprocess.run(
        command, env={**os.environ, **variables(stub)}, capture_output=True, text=True, check=True, timeout=240
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_driver_that_answers(told: dict[str, dict[str, Any]]) -> None:
    assert told["nothing"] == {
        "uuid": "GPU-d6a1", "process_bytes": [4000, None], "other_processes": [1, None], "device_bytes": [500, None],
        "energy_joules": [1234.5, None], "power_limit_watts": [700.0, None],
        "large": [None, "the process of this number that NVML lists is another one"],
        "sm_clock_megahertz": 1980, "temperature_celsius": 40, "throttle_reasons": 4, "driver": "580.1",
        "gpus": [["Stub GPU"], None],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "name", "words"),
    [
        ("mismatch", "device_bytes", "version mismatch"),
        ("mismatch", "process_bytes", "version mismatch"),
        ("permission", "process_bytes", "NVML: Insufficient Permissions"),
        ("permission", "other_processes", "NVML: Insufficient Permissions"),
        ("nobody", "process_bytes", "does not list this process"),
        ("namespace", "process_bytes", "does not list this process"),
        ("namespace", "other_processes", "does not list this process"),
        ("hidden", "process_bytes", "NVML hides the memory of processes here"),
        ("zero", "process_bytes", "does not tell the memory of processes in this container"),
        ("zero", "large", "does not tell the memory of processes in this container"),
        ("energy", "energy_joules", "NVML: Not Supported"),
        ("mig", "energy_joules", "the whole GPU, of which this is a part"),
        ("divided", "energy_joules", "the whole GPU, of which this is a part"),
        ("divided", "device_bytes", "NVML was told of the whole"),
    ],
)  # fmt: skip
def test_what_it_does_not_tell(told: dict[str, dict[str, Any]], word: str, name: str, words: str) -> None:
    value, reason = told[word][name]
    assert value is None
    assert words in reason


def test_a_mismatch_is_a_driver_that_does_not_answer(told: dict[str, dict[str, Any]]) -> None:
    assert told["mismatch"]["driver"] is None
    names, problem = told["mismatch"]["gpus"]
    assert names == []
    assert "version mismatch" in problem


def test_the_rest_is_told_all_the_same(told: dict[str, dict[str, Any]]) -> None:
    assert told["mig"]["uuid"] == "MIG-d6a1"
    assert told["older"]["throttle_reasons"] == 8
    for word in ("mig", "permission", "nobody", "hidden", "zero", "namespace", "energy", "older"):
        assert told[word]["device_bytes"] == [500, None], word


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the GPU here")
@pytest.mark.slow
def test_a_gpu_that_pytorch_can_not_use_is_said_by_commands(stub: Path, tmp_path: Path) -> None:
    found = run_command("env", cwd=tmp_path, module="revbench", **variables(stub))
    assert found.returncode == 0, found.stderr
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("accelerators")]
    assert "none: this machine has Stub GPU, but PyTorch can't use it: CUDA" in line
    mismatch = run_command("env", cwd=tmp_path, module="revbench", **variables(stub), STUB_NVML="mismatch")
    assert "an NVIDIA GPU, but PyTorch can't use it: its driver does not answer (RM has detected" in mismatch.stdout
    assert "reboot, or load the driver again" in mismatch.stdout
    run = run_command("run", "revnet-38", "--device", "cuda", cwd=tmp_path, module="revbench", **variables(stub))
    assert run.returncode == 2
    assert "device 'cuda' is not there: this machine has Stub GPU, but PyTorch can't use it: " in run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
