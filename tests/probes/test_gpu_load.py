"""Clocks under load and the share of a step in which a GPU computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revbench.probes import gpu_load as gpu_load_module
from revbench.probes.gpu_load import gpu_load, kernel_busy_share
from revbench.probes.nvml import Gpu
from revbench.workload import Workload
from tests.probes.test_device_probes import as_if_on_a_gpu
from tests.probes.test_nvml import UUID, FakeNvml, process

Spans = list[tuple[int, int]]


@given(
    spans=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=20), more=st.integers(0, 50)
)
def test_it_is_the_union_of_the_kernels_over_the_step(spans: Spans, more: int) -> None:
    intervals = [(a, a + n) for a, n in spans]
    ticks = {t for a, b in intervals for t in range(a, b)}
    seconds = len(ticks) + more
    found = kernel_busy_share([(float(a), float(b)) for a, b in intervals], seconds)
    assert found["kernel_busy_share"] == pytest.approx(len(ticks) / seconds)
    assert found["launch_bound"] == int(len(ticks) / seconds < 0.8)


def test_kernels_that_the_profiler_made_longer_than_the_step_are_all_of_it() -> None:
    assert kernel_busy_share([(0.0, 1.1)], 1.0) == {"kernel_busy_share": 1.0, "launch_bound": 0}


def test_no_kernels_are_no_share() -> None:
    found = kernel_busy_share([], 1.0)
    assert found["kernel_busy_share"] is found["launch_bound"] is None
    assert "CUPTI" in str(found["kernel_busy_share_reason"])
    assert "CUPTI" in str(found["launch_bound_reason"])


def test_clocks_are_read_while_steps_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reading has steps of more than 30 ms before it, and nothing that waits for them."""
    events: list[str] = []
    fake = FakeNvml(clock=lambda: events.append("clock") or 1700, processes=[process(9), process(9, pid=1)])  # type: ignore[func-returns-value]
    workload = as_if_on_a_gpu(monkeypatch, fake)
    monkeypatch.setattr(gpu_load_module.Gpu, "of_torch", lambda index: Gpu(UUID, nvml=fake))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    monkeypatch.setattr(Workload, "step", lambda self, x, y: events.append("step"))
    monkeypatch.setattr(gpu_load_module, "_kernels", lambda *_: [(0.0, 0.03)])
    found = gpu_load(workload, None, None, 0.01)
    assert events == (["step"] * 3 + ["clock", "wait"]) * 5
    assert found == {
        "sm_clock_megahertz": 1700, "temperature_celsius": 40, "throttle_reasons": 4, "other_processes": 1,
        "kernel_busy_share": pytest.approx(1.0), "launch_bound": 0,
    }  # fmt: skip
