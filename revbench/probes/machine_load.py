"""What else the machine does while something is timed on it: why a time may not be the case's own."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from revbench.probes.measurement import Value
from revbench.probes.nvml import Reading

_CONTROL_GROUP = Path("/sys/fs/cgroup")


class MachineLoad:
    """Reads the counters of the machine and of this process at the beginning and at the end; a context manager.

    Args:
        control_group: where the counters of this container's quota are.

    Attributes:
        metrics: after the end: ``other_cpu_cores`` (how many cores other processes kept busy), ``stolen_cpu_cores`` (how many
            a virtual machine wanted and did not get), ``quota_share`` (of the time, in which a container's quota held this
            process back), ``preemptions_per_second`` (how often the kernel took the core from this process),
            ``cpu_clock_megahertz`` (mean of the cores, at the end). What can't be had is None with the reason.
    """

    def __init__(self, control_group: Path = _CONTROL_GROUP) -> None:
        self._control_group = control_group
        self.metrics: dict[str, Value] = {}

    def __enter__(self) -> MachineLoad:
        self._before = self._counters()
        return self

    def __exit__(self, *exception: object) -> None:
        before, after = self._before, self._counters()
        seconds = after["clock"] - before["clock"]

        def rate(name: str, why: str) -> Reading:
            first, last = before[name], after[name]
            if first is None or last is None or seconds <= 0:
                return Reading(None, why)
            return Reading(max(last - first, 0.0) / seconds)

        others, moved = rate("busy", "the kernel does not count the time of processors here"), rate("total", "")
        if not moved.value:
            others = Reading(None, "the kernel does not count the time of processors here")
        elif others.value is not None:
            others = Reading(max(others.value - (after["own"] - before["own"]) / seconds, 0.0))
        stolen = rate("stolen", "the kernel does not count stolen time here") if moved.value else others
        self.metrics |= others.metrics("other_cpu_cores") | stolen.metrics("stolen_cpu_cores")
        self.metrics |= rate("held_back", "no quota of a container is told here").metrics("quota_share")
        self.metrics |= rate("preemptions", "").metrics("preemptions_per_second")
        self.metrics |= _clock().metrics("cpu_clock_megahertz")

    def _counters(self) -> dict[str, Any]:
        """Returns seconds and counts since whenever; None where the kernel has none."""
        processor, usage = _asked(lambda: psutil.cpu_times()), resource.getrusage(resource.RUSAGE_SELF)
        found: dict[str, Any] = {
            "clock": time.perf_counter(), "own": usage.ru_utime + usage.ru_stime, "preemptions": usage.ru_nivcsw,
            "busy": None, "stolen": None, "total": None, "held_back": self._held_back_seconds(),
        }  # fmt: skip
        if processor is not None:
            found["busy"] = processor.user + processor.system + getattr(processor, "nice", 0.0)
            found["stolen"] = getattr(processor, "steal", None)
            found["total"] = sum(processor)
        return found

    def _held_back_seconds(self) -> float | None:
        """Returns for how long a quota has held this control group back (version 2: ``cpu.stat``)."""
        try:
            lines = (self._control_group / "cpu.stat").read_text().splitlines()
        except (OSError, ValueError):
            return None
        values = dict(line.split(" ", 1) for line in lines if " " in line)
        told = values.get("throttled_usec", "")
        return int(told) / 1e6 if told.isdigit() else None


def _clock() -> Reading:
    told = _asked(lambda: psutil.cpu_freq())
    if told is None or not told.current:
        return Reading(None, "the kernel does not tell the processor's clock here")
    return Reading(round(float(told.current)))


def _asked(ask: Callable[[], Any]) -> Any:
    """Returns what psutil finds; None where a kernel, a container or a sandbox does not tell."""
    try:
        return ask()
    except (OSError, ValueError, RuntimeError, AttributeError, LookupError):
        return None
