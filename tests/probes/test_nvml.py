"""Every answer that NVML can give, from nvidia-ml-py's own exceptions."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from revbench.probes import nvml

UUID = "d6a1f2c0-0000-1111-2222-333344445555"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A GPU at NVML's index 1 whose answers a test can set."""
    answers: dict[str, Any] = {"processes": [], "used": 5_000, "reserved": 100}

    def by_uuid(uuid: str) -> str:
        assert uuid == f"GPU-{UUID}"
        return "handle"

    def memory(handle: str, version: int) -> Any:
        assert version == pynvml.nvmlMemory_v2
        return SimpleNamespace(used=answers["used"])

    def processes(handle: str) -> Any:
        if isinstance(answers["processes"], Exception):
            raise answers["processes"]
        return answers["processes"]

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda index: answers["reserved"])
    return answers


def process(used: int | None, pid: int | None = None) -> Any:
    return SimpleNamespace(pid=os.getpid() if pid is None else pid, usedGpuMemory=used)


def test_the_process_is_found(fake: dict[str, Any]) -> None:
    fake["processes"] = [process(77, pid=1), process(4_000)]
    assert nvml.process_bytes(0) == {"nvml_process_bytes": 4_000, "nvml_device_used_bytes": 5_000}


@pytest.mark.parametrize(
    ("processes", "reason"),
    [
        ([], "does not list"),
        ([process(77, pid=1)], "does not list"),
        ([process(None)], "hides"),
        ([process(50)], "another one"),  # less than this process has reserved
        (pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION), "Insufficient Permissions"),
        (pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED), "Not Supported"),
    ],
)
def test_a_missing_figure_is_none_with_its_reason(fake: dict[str, Any], processes: Any, reason: str) -> None:
    fake["processes"] = processes
    found = nvml.process_bytes(0)
    assert found["nvml_process_bytes"] is None
    assert reason in str(found["nvml_process_bytes_reason"])
    assert found["nvml_device_used_bytes"] == 5_000


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert nvml.driver_version() is None
    found = nvml.process_bytes(0)
    assert found["nvml_process_bytes"] is None
    assert found["nvml_device_used_bytes"] is None
    assert "NVML" in str(found["nvml_device_used_bytes_reason"])


def test_clocks(fake: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(handle: str, kind: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetClockInfo", lambda handle, kind: 1980)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", unsupported)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons", lambda handle: 0)
    found = nvml.clocks(0)
    assert found["sm_clock_megahertz"] == 1980
    assert found["throttle_reasons"] == 0
    assert found["temperature_celsius"] is None
    assert "Not Supported" in str(found["temperature_celsius_reason"])
