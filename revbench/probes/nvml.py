"""What NVML says of a GPU and of this process on it. The device is found by UUID, never by index.

A value that can't be had (no permission, a container's process numbers, MIG, WSL) is None with the reason
beside it, never 0.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import pynvml
import torch

from revbench.probes.measurement import Value

_T = TypeVar("_T")

_SHADOWED = (
    "the module pynvml is not that of nvidia-ml-py (an older package of this name shadows it): pip uninstall pynvml, then"
    " install nvidia-ml-py again"
)


class Nvml(Protocol):
    """What we call of nvidia-ml-py; a test gives its own, that raises nvidia-ml-py's own exceptions."""

    NVMLError: type[Exception]
    NVMLError_FunctionNotFound: type[Exception]
    NVMLError_LibraryNotFound: type[Exception]
    NVMLError_NotFound: type[Exception]
    NVMLLibraryMismatchError: type[Exception]
    nvmlMemory_v2: int
    NVML_CLOCK_SM: int
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None:
        """Load the library."""

    def nvmlShutdown(self) -> None:
        """Let it go."""

    def nvmlSystemGetDriverVersion(self) -> str:
        """Returns a version such as ``535.104.05``."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Any:
        """Returns a GPU's handle."""

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int) -> Any:
        """Returns ``used`` bytes of the whole GPU; of version 2 without what the driver reserves."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> Any:
        """Returns ``pid`` and ``usedGpuMemory`` of each process."""

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        """Millijoules since the driver was loaded."""

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        """Megahertz."""

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:
        """Returns degrees Celsius."""

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        """Returns a bit mask; drivers before 535 do not know it."""

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        """Returns the same by its older name."""

    def nvmlDeviceGetMigMode(self, handle: Any) -> Sequence[int]:
        """Returns whether a GPU is divided, now and after its next reset."""

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        """Returns milliwatts."""

    def nvmlDeviceGetCount(self) -> int:
        """Returns how many GPUs the driver sees."""

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        """Returns a GPU's handle."""

    def nvmlDeviceGetName(self, handle: Any) -> str:
        """Returns the name of its model."""


class Reading(NamedTuple):
    """A value, or None and why there is none."""

    value: int | float | None
    reason: str | None = None

    def metrics(self, name: str) -> dict[str, Value]:
        """Returns the reading as a row has it."""
        found: dict[str, Value] = {name: self.value}
        return found if self.reason is None else found | {f"{name}_reason": self.reason}


class Gpu:
    """One GPU, or a part of one (MIG), as NVML sees it; a context manager.

    Args:
        uuid: as PyTorch has it, without the prefix (``GPU-``, ``MIG-``) by which NVML tells the two apart.
        nvml: what answers.
        pid: of the process whose memory is asked for; this one if not given.

    Attributes:
        uuid: as NVML has it; that of a whole GPU where NVML finds none.
    """

    def __init__(self, uuid: str, *, nvml: Nvml = pynvml, pid: int | None = None) -> None:
        self._bare = uuid
        self.uuid = f"GPU-{uuid}"
        self._nvml = nvml
        self._pid = os.getpid() if pid is None else pid
        self._loaded = False
        self._handle: Any = None
        self._part = self._whole_of_a_part = False
        self._problem: str | None = None

    @classmethod
    def of_torch(cls, index: int, *, nvml: Nvml = pynvml) -> Gpu:
        """Returns the GPU that PyTorch counts under this index, which NVML may count under another."""
        return cls(str(torch.cuda.get_device_properties(index).uuid), nvml=nvml)

    def __enter__(self) -> Gpu:
        try:
            self._nvml.nvmlInit()
            self._loaded = True
            self._find()
        except self._nvml.NVMLError as error:
            self._problem = f"NVML: {error}"
        except (AttributeError, TypeError):
            self._problem = _SHADOWED
        return self

    def _find(self) -> None:
        nvml = self._nvml
        not_found = getattr(nvml, "NVMLError_NotFound", nvml.NVMLError)
        try:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(self.uuid)
        except not_found:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{self._bare}")
            self.uuid = f"MIG-{self._bare}"
            self._part = True
            return
        with contextlib.suppress(nvml.NVMLError, AttributeError):  # a GPU that can't be divided
            # Some versions of the CUDA runtime call a part by the UUID of the whole.
            self._whole_of_a_part = self._part = bool(nvml.nvmlDeviceGetMigMode(self._handle)[0])

    def __exit__(self, *exception: object) -> None:
        if self._loaded:
            self._nvml.nvmlShutdown()

    def process_bytes(self, least: int = 0) -> Reading:
        """Returns bytes of this process: after warm-up what the allocator reserved plus the CUDA context, not the tensors.

        Args:
            least: what this process is known to hold; a value below it is another process's, whose number in NVML's
                space happens to be ours.
        """

        def ask() -> Reading:
            listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
            own = next((p for p in listed if p.pid == self._pid), None)
            if own is None:
                return Reading(None, "NVML does not list this process (another process-number space?)")
            if own.usedGpuMemory is None:
                return Reading(None, "NVML hides the memory of processes here (permission, MIG or WSL)")
            if not own.usedGpuMemory:
                return Reading(None, "NVML does not tell the memory of processes in this container: it says 0")
            if int(own.usedGpuMemory) < least:
                return Reading(None, "the process of this number that NVML lists is another one")
            return Reading(int(own.usedGpuMemory))

        return self._asked(ask)

    def other_processes(self) -> Reading:
        """Returns how many other processes compute on the GPU; a container may list none of them, and this one neither."""

        def ask() -> Reading:
            numbers = [process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)]
            if self._pid not in numbers:
                return Reading(None, "NVML does not list this process (another process-number space?)")
            return Reading(len(numbers) - 1)

        return self._asked(ask)

    def device_bytes(self) -> Reading:
        """Returns bytes in use on the whole GPU, by whomever."""

        def ask() -> Reading:
            if self._whole_of_a_part:
                return Reading(None, "this process has a part of the GPU (MIG), and NVML was told of the whole")
            return Reading(int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2).used))

        return self._asked(ask)

    def energy_joules(self) -> Reading:
        """Returns the energy since the driver was loaded; the counter moves about every 0.1 s, so differences want seconds."""

        def ask() -> Reading:
            if self._part:
                return Reading(None, "the counter of energy is that of the whole GPU, of which this is a part (MIG)")
            return Reading(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3)

        return self._asked(ask)

    def power_limit_watts(self) -> Reading:
        """Returns the limit that is in force, which sets how fast a GPU may run."""
        return self._asked(lambda: Reading(self._nvml.nvmlDeviceGetEnforcedPowerLimit(self._handle) / 1e3))

    def clocks(self) -> Clocks:
        """Returns what the GPU does at this moment; while it idles, that says nothing of how it computes."""
        nvml, handle = self._nvml, self._handle
        readers: dict[str, Callable[[], int]] = {
            "sm_clock_megahertz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": self._event_reasons,
        }
        return Clocks(**{name: self._asked(lambda read=read: Reading(int(read()))) for name, read in readers.items()})  # type: ignore[misc]

    def _event_reasons(self) -> int:
        nvml = self._nvml
        older = getattr(nvml, "NVMLError_FunctionNotFound", nvml.NVMLError)
        try:
            return nvml.nvmlDeviceGetCurrentClocksEventReasons(self._handle)
        except (older, AttributeError):
            return nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)

    def _asked(self, ask: Callable[[], Reading]) -> Reading:
        if self._problem is not None:
            return Reading(None, self._problem)
        errors = self._nvml.NVMLError, getattr(self._nvml, "NVMLLibraryMismatchError", self._nvml.NVMLError)
        try:
            return ask()
        except errors as error:
            return Reading(None, f"NVML: {error}")
        except (AttributeError, TypeError):
            return Reading(None, _SHADOWED)


class Clocks(NamedTuple):
    """What a GPU does at one moment.

    Attributes:
        sm_clock_megahertz: clock of its multiprocessors.
        temperature_celsius: of the GPU.
        throttle_reasons: why it does not run faster: NVML's bit mask.
    """

    sm_clock_megahertz: Reading
    temperature_celsius: Reading
    throttle_reasons: Reading


def joined(moments: Sequence[Clocks]) -> dict[str, Value]:
    """Returns what some moments come to: the median clock, the highest temperature, the bits that were set at any of them."""
    found: dict[str, Value] = {}
    how: dict[str, Callable[[list[Any]], int | float]] = {
        "sm_clock_megahertz": statistics.median, "temperature_celsius": max,
        "throttle_reasons": lambda masks: functools.reduce(operator.or_, masks),
    }  # fmt: skip
    for name, summarise in how.items():
        readings: list[Reading] = [getattr(moment, name) for moment in moments]
        values = [reading.value for reading in readings if reading.value is not None]
        found |= (Reading(summarise(values)) if values else readings[-1]).metrics(name)
    return found


def driver_version(nvml: Nvml = pynvml) -> str | None:
    """Returns the NVIDIA driver's version; None without NVML."""
    return _told(nvml, lambda: str(nvml.nvmlSystemGetDriverVersion()))[0]


def gpus_of_driver(nvml: Nvml = pynvml) -> tuple[list[str], str | None]:
    """Returns the model of each GPU that the driver sees, whether PyTorch can use it or not, and why a driver that is there does
    not answer; nothing of both where there is none.
    """

    def ask() -> list[str]:
        handles = (nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount()))
        return [str(nvml.nvmlDeviceGetName(handle)) for handle in handles]

    names, problem = _told(nvml, ask)
    return names or [], problem


def _told(nvml: Nvml, ask: Callable[[], _T]) -> tuple[_T | None, str | None]:
    """Returns what an NVML says that is loaded for this question, or None and why not; no reason if there is none."""
    absent = getattr(nvml, "NVMLError_LibraryNotFound", ())
    try:
        nvml.nvmlInit()
    except absent:
        return None, None
    except (nvml.NVMLError, AttributeError) as error:
        return None, str(error)
    try:
        return ask(), None
    except (nvml.NVMLError, AttributeError, TypeError) as error:
        return None, str(error)
    finally:
        nvml.nvmlShutdown()
