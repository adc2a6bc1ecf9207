"""What NVML says of a GPU and of this process on it. The device is found by UUID, never by index.

A value that can't be had (no permission, a container's process numbers, MIG, WSL) is None with the reason
beside it, never 0.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import pynvml
import torch

from revbench.probes.measurement import Value

_SHADOWED = (
    "the module pynvml is not that of nvidia-ml-py (an older package of this name shadows it): pip uninstall pynvml, then"
    " install nvidia-ml-py again"
)


class Nvml(Protocol):
    """What we call of nvidia-ml-py; a test gives its own, that raises nvidia-ml-py's own exceptions."""

    NVMLError: type[Exception]
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

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:
        """Returns a bit mask."""


class Reading(NamedTuple):
    """A value, or None and why there is none."""

    value: int | float | None
    reason: str | None = None

    def metrics(self, name: str) -> dict[str, Value]:
        """Returns the reading as a row has it."""
        found: dict[str, Value] = {name: self.value}
        return found if self.reason is None else found | {f"{name}_reason": self.reason}


class Gpu:
    """One GPU as NVML sees it; a context manager.

    Args:
        uuid: of the GPU, with its prefix ``GPU-``.
        nvml: what answers.
        pid: of the process whose memory is asked for; this one if not given.
    """

    def __init__(self, uuid: str, *, nvml: Nvml = pynvml, pid: int | None = None) -> None:
        self._uuid = uuid
        self._nvml = nvml
        self._pid = os.getpid() if pid is None else pid
        self._loaded = False
        self._handle: Any = None
        self._problem: str | None = None

    @classmethod
    def of_torch(cls, index: int, *, nvml: Nvml = pynvml) -> Gpu:
        """Returns the GPU that PyTorch counts under this index, which NVML may count under another."""
        return cls(f"GPU-{torch.cuda.get_device_properties(index).uuid}", nvml=nvml)

    def __enter__(self) -> Gpu:
        try:
            self._nvml.nvmlInit()
            self._loaded = True
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(self._uuid)
        except self._nvml.NVMLError as error:
            self._problem = f"NVML: {error}"
        except (AttributeError, TypeError):
            self._problem = _SHADOWED
        return self

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
            if int(own.usedGpuMemory) < least:
                return Reading(None, "the process of this number that NVML lists is another one")
            return Reading(int(own.usedGpuMemory))

        return self._asked(ask)

    def device_bytes(self) -> Reading:
        """Returns bytes in use on the whole GPU, by whomever."""
        return self._asked(
            lambda: Reading(
                int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle, version=self._nvml.nvmlMemory_v2).used)
            )
        )

    def energy_joules(self) -> Reading:
        """Returns the energy since the driver was loaded; the counter moves about every 0.1 s, so differences want seconds."""
        return self._asked(lambda: Reading(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3))

    def clocks(self) -> dict[str, Value]:
        """Returns ``sm_clock_megahertz``, ``temperature_celsius`` and ``throttle_reasons`` (NVML's bit mask), now."""
        nvml, handle = self._nvml, self._handle
        readers: dict[str, Callable[[], int]] = {
            "sm_clock_megahertz": lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM),
            "temperature_celsius": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),
        }
        found: dict[str, Value] = {}
        for name, read in readers.items():
            found |= self._asked(lambda read=read: Reading(int(read()))).metrics(name)  # type: ignore[misc]
        return found

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


class Sampler:
    """Reads a value at an interval in a thread of this process; a context manager.

    Args:
        read: gives the value, or None for none.
        interval_seconds: between the end of one reading and the beginning of the next.

    Attributes:
        samples: seconds since the beginning, and the value.
    """

    def __init__(self, read: Callable[[], int | float | None], interval_seconds: float) -> None:
        self._read = read
        self._interval_seconds = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.samples: list[tuple[float, int | float | None]] = []

    def __enter__(self) -> Sampler:
        self._began = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.samples.append((time.perf_counter() - self._began, self._read()))
            if self._over.wait(self._interval_seconds):
                return


def driver_version(nvml: Nvml = pynvml) -> str | None:
    """Returns the NVIDIA driver's version; None without NVML."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return str(nvml.nvmlSystemGetDriverVersion())
    finally:
        nvml.nvmlShutdown()
