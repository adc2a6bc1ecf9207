"""Time and memory of steps; the GPU's way with a device that is not there."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from revbench.probes.nvml import Gpu
from revbench.training import meter
from revbench.training.meter import Meter, values_later
from tests.probes.test_nvml import UUID, FakeNvml


def test_on_the_cpu() -> None:
    with Meter("cpu") as found:
        seconds = []
        for pause in (0.0, 0.05):
            found.begin()
            time.sleep(pause)
            values = found.end()()
            seconds.append(values["step_seconds"])
            assert values["peak_bytes"] > 10e6  # type: ignore[operator]
        assert seconds[1] > seconds[0]
        assert found.high_water() == {
            "nvml_process_peak_bytes": None, "nvml_process_peak_bytes_reason": "NVML sees GPUs only"
        }  # fmt: skip


class FakeEvent:
    """Of a device whose clock advances by a second with each event."""

    clock = 0.0
    waited = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.clock += 1
        self.at = FakeEvent.clock

    def synchronize(self) -> None:
        FakeEvent.waited += 1

    def elapsed_time(self, other: FakeEvent) -> float:
        return (other.at - self.at) * 1e3


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What NVML lists; a test changes it."""
    listed: list[Any] = [SimpleNamespace(pid=7, usedGpuMemory=1000)]
    for name, answer in (
        ("Event", FakeEvent), ("current_device", lambda: 0), ("reset_peak_memory_stats", lambda: None),
        ("max_memory_allocated", lambda: 500), ("memory_allocated", lambda index: 400),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, answer)
    fake = FakeNvml(processes=lambda: list(listed))
    monkeypatch.setattr(Gpu, "of_torch", classmethod(lambda cls, index: cls(UUID, nvml=fake, pid=7)))
    monkeypatch.setattr(meter, "NVML_INTERVAL_SECONDS", 1000.0)
    return listed


def test_on_a_gpu_nothing_is_waited_for_until_it_is_read(processes: list[Any]) -> None:
    FakeEvent.waited = 0
    with Meter("cuda") as found:
        found.begin()
        first = found.end()
        found.begin()
        second = found.end()
        assert FakeEvent.waited == 0
        found.high_water()
        assert first() == {"step_seconds": 1.0, "peak_bytes": 500, "nvml_process_peak_bytes": 1000}
        assert second()["step_seconds"] == 1.0
        assert FakeEvent.waited == 2


def test_the_high_water_mark_of_nvml_only_rises(processes: list[Any]) -> None:
    with Meter("cuda") as found:
        for used, expected in ((3000, 3000), (2000, 3000), (5000, 5000)):
            processes[:] = [SimpleNamespace(pid=7, usedGpuMemory=used)]
            assert found.high_water() == {"nvml_process_peak_bytes": expected}
        processes.clear()
        assert found.high_water() == {"nvml_process_peak_bytes": 5000}


def test_a_figure_that_can_not_be_had_is_null_with_the_reason(processes: list[Any]) -> None:
    processes[:] = [SimpleNamespace(pid=7, usedGpuMemory=100)]  # less than this process is known to hold
    with Meter("cuda") as found:
        values = found.high_water()
        assert values["nvml_process_peak_bytes"] is None
        assert "another one" in str(values["nvml_process_peak_bytes_reason"])


class OnAGpu(torch.Tensor):
    """Lies here, and says that it lies on a GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)


def test_values_are_fetched_before_the_next_step_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    copy, empty = torch.Tensor.copy_, torch.empty

    class Event:
        def record(self) -> None:
            events.append("record")

        def synchronize(self) -> None:
            events.append("wait")

    def copied(self: torch.Tensor, other: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        events.append(f"copy, non_blocking={non_blocking}")
        return copy(self, other.as_subclass(torch.Tensor))

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options))
    monkeypatch.setattr(torch.Tensor, "copy_", copied)
    totals = torch.tensor([1.5, 3.0])
    read = values_later(totals.as_subclass(OnAGpu))
    assert events == ["copy, non_blocking=True", "record"]
    totals.zero_()  # the next step
    assert read() == [1.5, 3.0]
    assert events[2:] == ["wait"]


def test_values_on_the_cpu_are_there() -> None:
    assert values_later(torch.tensor([1.5, 3.0]))() == [1.5, 3.0]


@pytest.mark.cuda
def test_a_gpu_is_not_waited_for_until_its_queue_is_empty() -> None:
    totals = torch.tensor([1.0, 2.0], device="cuda") * 2
    read = values_later(totals)
    torch.cuda._sleep(1_000_000_000)  # cycles: half a second of a next step
    after = torch.cuda.Event()
    after.record()
    assert read() == [2.0, 4.0]
    assert not after.query()


@pytest.mark.cuda
def test_on_a_real_gpu() -> None:
    with Meter("cuda") as found:
        found.begin()
        x = torch.ones(1 << 20, device="cuda")
        (x @ x).item()
        values = found.end()()
        assert values["step_seconds"] > 0  # type: ignore[operator]
        assert values["peak_bytes"] >= 4 << 20  # type: ignore[operator]
        high = found.high_water()["nvml_process_peak_bytes"]
        assert high is None or high >= 4 << 20  # type: ignore[operator]
