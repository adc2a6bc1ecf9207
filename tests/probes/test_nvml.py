"""Every answer that NVML can give, from nvidia-ml-py's own exceptions."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from revbench.probes import nvml
from revbench.probes.nvml import Gpu, Sampler

UUID = "GPU-d6a1f2c0-0000-1111-2222-333344445555"


class FakeNvml:
    """A GPU at NVML's index 1 whose answers a test can set; an exception is raised in place of an answer."""

    NVMLError = pynvml.NVMLError
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "init": None, "handle": "handle", "driver": "535.1", "processes": [], "used": 5_000, "millijoules": 0, "clock": 1980,
            "temperature": 40, "throttle": 0,
        } | answers  # fmt: skip
        self.loaded = 0

    def _answer(self, name: str) -> Any:
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def nvmlInit(self) -> None:
        self._answer("init")
        self.loaded += 1

    def nvmlShutdown(self) -> None:
        self.loaded -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return str(self._answer("driver"))

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        assert uuid == UUID
        return self._answer("handle")

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int) -> Any:
        assert (handle, version) == ("handle", pynvml.nvmlMemory_v2)
        return SimpleNamespace(used=self._answer("used"))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Any:
        return self._answer("processes")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        return int(self._answer("millijoules"))

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        return int(self._answer("clock"))

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        return int(self._answer("temperature"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return int(self._answer("throttle"))


def process(used: int | None, pid: int | None = None) -> Any:
    return SimpleNamespace(pid=os.getpid() if pid is None else pid, usedGpuMemory=used)


def failure(code: int) -> Exception:
    error: Exception = pynvml.NVMLError(code)
    return error


def test_the_process_is_found_by_its_number() -> None:
    fake = FakeNvml(processes=[process(77, pid=1), process(4_000)])
    with Gpu(UUID, nvml=fake) as gpu:
        assert gpu.process_bytes(least=100) == (4_000, None)
        assert gpu.device_bytes() == (5_000, None)
        assert fake.loaded == 1
    assert fake.loaded == 0
    with Gpu(UUID, nvml=fake, pid=1) as gpu:
        assert gpu.process_bytes().value == 77


@pytest.mark.parametrize(
    ("processes", "reason"),
    [
        ([], "does not list"),
        ([process(77, pid=1)], "does not list"),
        ([process(None)], "hides"),
        ([process(50)], "another one"),  # less than this process has reserved
        (failure(pynvml.NVML_ERROR_NO_PERMISSION), "Insufficient Permissions"),
        (failure(pynvml.NVML_ERROR_NOT_SUPPORTED), "Not Supported"),
        (failure(pynvml.NVML_ERROR_GPU_IS_LOST), "GPU is lost"),
        (pynvml.NVMLLibraryMismatchError("an older driver"), "an older driver"),
    ],
)
def test_a_missing_figure_is_none_with_its_reason(processes: Any, reason: str) -> None:
    with Gpu(UUID, nvml=FakeNvml(processes=processes)) as gpu:
        found = gpu.process_bytes(least=100).metrics("nvml_process_bytes")
        assert gpu.device_bytes().value == 5_000
    assert found["nvml_process_bytes"] is None
    assert reason in str(found["nvml_process_bytes_reason"])


def test_an_older_module_of_that_name_is_named() -> None:
    """Without the second version of the memory's values, and without the error of libraries that do not fit."""
    older = SimpleNamespace(
        NVMLError=pynvml.NVMLError, nvmlInit=lambda: None, nvmlShutdown=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: "handle", nvmlDeviceGetMemoryInfo=lambda handle: None,
    )  # fmt: skip
    with Gpu(UUID, nvml=older) as gpu:  # type: ignore[arg-type]
        for reading in (gpu.device_bytes(), gpu.process_bytes(), gpu.energy_joules()):
            assert reading.value is None
            assert "pip uninstall pynvml" in str(reading.reason)
    del older.nvmlInit
    with Gpu(UUID, nvml=older) as gpu:  # type: ignore[arg-type]
        assert "pip uninstall pynvml" in str(gpu.device_bytes().reason)


@pytest.mark.parametrize(
    "answers",
    [{"init": failure(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)}, {"handle": failure(pynvml.NVML_ERROR_NOT_FOUND)}],
)
def test_without_a_driver_or_the_gpu_every_figure_is_none(answers: dict[str, Any]) -> None:
    fake = FakeNvml(**answers)
    with Gpu(UUID, nvml=fake) as gpu:
        readings = [gpu.process_bytes(), gpu.device_bytes(), gpu.energy_joules()]
        clocks = gpu.clocks()
    assert all(value is None and str(reason).startswith("NVML: ") for value, reason in readings)
    assert clocks["sm_clock_megahertz"] is None
    assert fake.loaded == 0


def test_the_real_library_without_a_gpu_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with Gpu(UUID) as gpu:
        assert gpu.process_bytes().value is None


def test_driver_version() -> None:
    assert nvml.driver_version(FakeNvml()) == "535.1"
    assert nvml.driver_version(FakeNvml(init=failure(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))) is None


def test_clocks() -> None:
    with Gpu(UUID, nvml=FakeNvml(temperature=failure(pynvml.NVML_ERROR_NOT_SUPPORTED))) as gpu:
        found = gpu.clocks()
    assert found["sm_clock_megahertz"] == 1980
    assert found["throttle_reasons"] == 0
    assert found["temperature_celsius"] is None
    assert "Not Supported" in str(found["temperature_celsius_reason"])


def test_the_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid=UUID.removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    with Gpu.of_torch(0, nvml=FakeNvml()) as gpu:
        assert gpu.device_bytes().value == 5_000


def test_the_sampler_reads_until_it_is_left() -> None:
    values = iter(range(10_000))
    with Sampler(lambda: next(values), 0.001) as sampler:
        while len(sampler.samples) < 5:
            time.sleep(0.001)
    count = len(sampler.samples)
    assert [value for _, value in sampler.samples] == list(range(count))
    seconds = [at for at, _ in sampler.samples]
    assert seconds == sorted(seconds)
    time.sleep(0.01)
    assert len(sampler.samples) == count
