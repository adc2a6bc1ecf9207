"""What else the machine does: shares of its time, from counters that a kernel may lack."""

from __future__ import annotations

import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest

from revbench.probes import machine_load
from revbench.probes.machine_load import MachineLoad

Times = namedtuple("Times", "user nice system idle iowait irq softirq steal")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Counters before and after, and a clock on which ten seconds pass."""
    left = [Times(0, 0, 0, 0, 0, 0, 0, 0), Times(12, 3, 10, 50, 0, 0, 0, 5)]
    moments = iter((100.0, 110.0))
    monkeypatch.setattr(psutil, "cpu_times", lambda: left.pop(0))
    monkeypatch.setattr(machine_load.time, "perf_counter", lambda: next(moments))
    return left


def test_cores_are_told_by_what_the_kernel_counts(kernel: list[Any], tmp_path: Path) -> None:
    with MachineLoad(tmp_path) as load:
        pass
    # 25 s of processors in 10 s, of which this process had next to nothing
    assert load.metrics["other_cpu_cores"] == pytest.approx(2.5, abs=0.1)
    assert load.metrics["stolen_cpu_cores"] == 0.5
    assert load.metrics["quota_share"] is None
    assert "quota" in str(load.metrics["quota_share_reason"])


def test_a_quota_that_holds_back_is_told(kernel: list[Any], tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 1000000\n")
    with MachineLoad(tmp_path) as load:
        (tmp_path / "cpu.stat").write_text("usage_usec 9\nthrottled_usec 3000000\n")
    assert load.metrics["quota_share"] == pytest.approx(0.2)


def test_a_kernel_that_counts_nothing_is_no_idle_machine(
    kernel: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox gives zeros, another no file at all."""
    kernel[1] = kernel[0]
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    with MachineLoad(tmp_path) as load:
        pass
    for name in ("other_cpu_cores", "stolen_cpu_cores", "cpu_clock_megahertz"):
        assert load.metrics[name] is None
        assert load.metrics[f"{name}_reason"]

    def absent() -> None:
        raise FileNotFoundError("/proc/stat")

    monkeypatch.undo()
    monkeypatch.setattr(psutil, "cpu_times", absent)
    with MachineLoad(tmp_path) as load:
        pass
    assert load.metrics["other_cpu_cores"] is None


def test_what_this_process_does_is_not_others(tmp_path: Path) -> None:
    with MachineLoad(tmp_path) as load:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
    others = load.metrics["other_cpu_cores"]
    assert others is None or 0 <= others < psutil.cpu_count()  # type: ignore[operator]
