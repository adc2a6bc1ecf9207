"""Every answer that NVML can give, from nvidia-ml-py's own exceptions."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from revbench.probes import nvml
from revbench.probes.nvml import Clocks, Gpu, Reading, gpus_of_driver, joined

UUID = "d6a1f2c0-0000-1111-2222-333344445555"  # without its prefix, as PyTorch has it


class FakeNvml:
    """A GPU at NVML's index 1 whose answers a test can set; an exception is raised in place of an answer."""

    NVMLError = pynvml.NVMLError
    NVMLLibraryMismatchError = pynvml.NVMLLibraryMismatchError
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVMLError_LibraryNotFound = pynvml.NVMLError_LibraryNotFound
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    nvmlMemory_v2 = pynvml.nvmlMemory_v2
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "init": None, "handle": "handle", "driver": "535.1", "processes": [], "used": 5_000, "millijoules": 0, "clock": 1980,
            "temperature": 40, "throttle": 0, "events": 4, "milliwatts": 700_000, "mig": False, "divided": (0, 0),
            "names": ["A GPU"],
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
        assert uuid.partition("-")[2] == UUID
        if uuid.startswith("MIG-") != self.answers["mig"]:
            raise failure(pynvml.NVML_ERROR_NOT_FOUND)
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

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        return int(self._answer("events"))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        return int(self._answer("throttle"))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        return int(self._answer("milliwatts"))

    def nvmlDeviceGetMigMode(self, handle: Any) -> Any:
        return self._answer("divided")

    def nvmlDeviceGetCount(self) -> int:
        return len(self._answer("names"))

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return index

    def nvmlDeviceGetName(self, handle: Any) -> str:
        return str(self.answers["names"][handle])


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
        ([process(0)], "does not tell the memory of processes in this container"),
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
        clocks = joined([gpu.clocks()])
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


def test_gpus_of_the_driver() -> None:
    assert gpus_of_driver(FakeNvml(names=["A GPU", "Another"])) == (["A GPU", "Another"], None)
    assert gpus_of_driver(FakeNvml(init=failure(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))) == ([], None)
    mismatch = FakeNvml(init=failure(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH))
    lost = FakeNvml(names=failure(pynvml.NVML_ERROR_GPU_IS_LOST))
    for fake, words in ((mismatch, "version mismatch"), (lost, "GPU is lost")):
        names, problem = gpus_of_driver(fake)
        assert names == []
        assert words in str(problem)
        assert fake.loaded == 0


def test_clocks_of_some_moments() -> None:
    moments = []
    for clock, temperature, events in ((1980, 40, 0), (1500, 81, 4), (1755, 80, 0x20)):
        with Gpu(UUID, nvml=FakeNvml(clock=clock, temperature=temperature, events=events)) as gpu:
            moments.append(gpu.clocks())
    assert joined(moments) == {"sm_clock_megahertz": 1755, "temperature_celsius": 81, "throttle_reasons": 0x24}


def test_a_clock_that_is_not_told_has_its_reason() -> None:
    with Gpu(UUID, nvml=FakeNvml(temperature=failure(pynvml.NVML_ERROR_NOT_SUPPORTED))) as gpu:
        moments = [gpu.clocks(), Clocks(Reading(1000), Reading(None, "no"), Reading(1))]
        found = joined(moments[:1])
    assert found["sm_clock_megahertz"] == 1980
    assert found["temperature_celsius"] is None
    assert "Not Supported" in str(found["temperature_celsius_reason"])
    assert joined(moments)["throttle_reasons"] == 5


@pytest.mark.parametrize("older", ["driver", "package"])
def test_reasons_by_their_older_name(older: str) -> None:
    """A driver that does not know the newer one, or an nvidia-ml-py that does not."""
    if older == "driver":
        fake: Any = FakeNvml(throttle=8, events=failure(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND))
    else:
        fake = type("Older", (FakeNvml,), {"nvmlDeviceGetCurrentClocksEventReasons": property(_absent)})(throttle=8)
    with Gpu(UUID, nvml=fake) as gpu:
        assert gpu.clocks().throttle_reasons == (8, None)


def _absent(_: object) -> None:
    raise AttributeError("no such function")


def test_a_part_of_a_gpu() -> None:
    with Gpu(UUID, nvml=FakeNvml(mig=True)) as gpu:
        assert gpu.uuid == f"MIG-{UUID}"
        assert gpu.device_bytes().value == 5_000
        assert "whole GPU, of which this is a part" in str(gpu.energy_joules().reason)
    with Gpu(UUID, nvml=FakeNvml()) as gpu:
        assert gpu.uuid == f"GPU-{UUID}"


def test_a_part_that_the_runtime_calls_by_the_uuid_of_the_whole() -> None:
    with Gpu(UUID, nvml=FakeNvml(divided=(1, 1), processes=[process(4_000)])) as gpu:
        assert "whole GPU, of which this is a part" in str(gpu.energy_joules().reason)
        assert "NVML was told of the whole" in str(gpu.device_bytes().reason)
        assert gpu.process_bytes().value == 4_000
    for answer in (failure(pynvml.NVML_ERROR_NOT_SUPPORTED), (0, 1)):
        with Gpu(UUID, nvml=FakeNvml(divided=answer)) as gpu:
            assert gpu.device_bytes().value == 5_000


def test_the_first_reason_is_kept() -> None:
    with Gpu(UUID, nvml=FakeNvml(handle=failure(pynvml.NVML_ERROR_GPU_IS_LOST))) as gpu:
        assert "GPU is lost" in str(gpu.device_bytes().reason)


def test_others_on_the_gpu() -> None:
    fake = FakeNvml(processes=[process(1, pid=1), process(2), process(3, pid=2)])
    with Gpu(UUID, nvml=fake) as gpu:
        assert gpu.other_processes().value == 2
        assert gpu.power_limit_watts().value == 700
    with Gpu(UUID, nvml=FakeNvml(processes=[process(1, pid=1)])) as gpu:
        assert "does not list this process" in str(gpu.other_processes().reason)


def test_the_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    with Gpu.of_torch(0, nvml=FakeNvml()) as gpu:
        assert gpu.device_bytes().value == 5_000
