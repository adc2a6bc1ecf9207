"""What the probes of a GPU make of its answers, on a machine that has none."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest
import torch
from torch import Tensor, nn

from revbench.case import Case
from revbench.probes import cuda_memory, energy
from revbench.probes.cuda_memory import allocator_metrics, measure_memory_history, measure_nvml, read_history
from revbench.probes.energy import measure_energy
from revbench.probes.leak import measure_leak, slope_with_interval
from revbench.probes.memory import measure_memory
from revbench.probes.nvml import Gpu, Reading
from revbench.probes.reconciliation import CPU_CHAIN, GPU_CHAIN, reconcile
from revbench.workload import Workload, build_workload
from tests.probes.test_nvml import UUID, FakeNvml, failure, process

CASE = Case(model="tests.probes.test_device_probes:small", batch_size=2, image_size=4)
KEPT: list[Tensor] = []


def small() -> nn.Module:
    """A linear classifier of images of 4 x 4 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 10))


class Leaking(nn.Module):
    """Keeps what it returns, once a step."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = small()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        KEPT.append(out.detach())
        return out


def as_if_on_a_gpu(monkeypatch: pytest.MonkeyPatch, nvml: FakeNvml, case: Case = CASE) -> Workload:
    """The workload runs here; PyTorch and NVML answer as if it ran on a GPU."""
    real = build_workload(case)
    workload = Workload(case.replace(device="cuda"), real.model, real.make_batch, real.loss, real.optimizer)
    monkeypatch.setattr(Workload, "place", lambda self, value: value)
    forward = Workload.forward
    monkeypatch.setattr(Workload, "forward", lambda self, x, y: forward(real, x, y))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 100)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 60)
    for module in (cuda_memory, energy):
        monkeypatch.setattr(module.Gpu, "of_torch", lambda index: Gpu(UUID, nvml=nvml))
    return workload


def ignore(message: Any) -> None:
    """No progress is shown."""


def test_the_chain_of_a_gpu_names_every_gap() -> None:
    levels = [100, 130, 150, 200, 700, 900]
    names = [GPU_CHAIN[0].below, *(gap.above for gap in GPU_CHAIN)]
    found = reconcile(dict(zip(names, levels, strict=True)))
    assert found == {
        "workspace_bytes": 30, "rounding_bytes": 20, "cache_bytes": 50, "context_bytes": 500, "others_bytes": 200
    }  # fmt: skip
    assert levels[0] + sum(int(gap) for gap in found.values() if gap) == levels[-1]


def test_a_gap_beside_a_missing_figure_is_none_with_the_reason() -> None:
    found = reconcile(
        {"peak_bytes": 1, "requested_peak_bytes": 3, "allocated_peak_bytes": 4, "reserved_peak_bytes": 5,
         "nvml_process_bytes": None, "nvml_process_bytes_reason": "hidden", "nvml_device_used_bytes": 9}
    )  # fmt: skip
    assert found["cache_bytes"] == 1
    assert found["context_bytes"] is found["others_bytes"] is None
    assert found["context_bytes_reason"] == "nvml_process_bytes: hidden"


def test_the_chain_of_the_cpu_ends_at_the_resident_set() -> None:
    metrics = measure_memory(build_workload(CASE), progress=ignore).metrics
    gaps = [metrics[gap.name] for gap in CPU_CHAIN]
    assert metrics["peak_bytes"] + sum(gaps) == metrics["rss_bytes"]  # type: ignore[operator,arg-type]
    assert 0 < metrics["unique_set_bytes"] <= metrics["rss_bytes"] <= metrics["rss_peak_bytes"]  # type: ignore[operator]


def test_allocator_metrics_by_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = as_if_on_a_gpu(monkeypatch, FakeNvml(processes=[process(900)]))
    answers = iter(
        {
            **{f"{k}_bytes.all.{w}": v + i for i, k in enumerate(("requested", "allocated", "reserved"))
               for w, v in (("peak", peak), ("current", peak // 2))},
            "num_alloc_retries": 1, "num_ooms": 0,
        }
        for peak in (100, 300, 200)
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: next(answers))
    resets: list[int] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: resets.append(1))
    found = allocator_metrics(workload, *workload.batch())
    assert len(resets) == 3
    assert [found[f"{p}_allocated_peak_bytes"] for p in ("forward", "backward", "optimizer")] == [101, 301, 201]
    assert found["backward_reserved_bytes"] == 152
    assert (found["requested_peak_bytes"], found["reserved_peak_bytes"]) == (300, 302)
    assert (found["steady_allocated_bytes"], found["allocated_activation_peak_bytes"]) == (60, 241)
    assert (found["allocation_retries"], found["allocator_ooms"]) == (1, 0)
    assert (found["nvml_process_bytes"], found["nvml_device_used_bytes"]) == (900, 5_000)


def test_the_allocators_history() -> None:
    trace = [
        {"action": "segment_alloc", "size": 200, "time_us": 1_000_000},
        {"action": "alloc", "size": 150, "time_us": 1_000_010},
        {"action": "free_requested", "size": 150, "time_us": 1_000_020},
        {"action": "free_completed", "size": 150, "time_us": 1_000_030},
        {"action": "segment_map", "size": 7, "time_us": 1_000_035},
        {"action": "snapshot", "size": 0, "time_us": 1_000_040},
    ]
    found = read_history(trace, requested=10, reserved=20)
    assert found["requested_bytes"] == [10, 160, 10, 10]
    assert found["reserved_bytes"] == [220, 220, 220, 227]
    assert found["seconds"] == pytest.approx([0, 1e-5, 3e-5, 3.5e-5])


def test_the_process_and_the_cost_of_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter(range(200, 10_000_000))
    fake = FakeNvml(processes=lambda: [process(next(sizes))])
    found = measure_nvml(
        as_if_on_a_gpu(monkeypatch, fake), progress=ignore, device_before=Reading(4_000), interval_seconds=0.001, rounds=3,
        block_seconds=0.01,
    )  # fmt: skip
    # The last reading, after all samples, is the highest of these.
    assert found.metrics["nvml_process_peak_bytes"] == max(found.series["nvml_process_bytes"]) + 1  # type: ignore[operator,type-var]
    assert (found.metrics["nvml_device_before_bytes"], found.metrics["nvml_device_after_bytes"]) == (4_000, 5_000)
    assert len(found.samples["sampler_slowdown"]) == 3
    seconds: Any = found.series["seconds"]
    assert seconds == sorted(seconds)


def test_a_process_that_is_listed_at_the_end_only(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = as_if_on_a_gpu(monkeypatch, FakeNvml(processes=[process(300)]))
    monkeypatch.setattr(cuda_memory, "Sampler", NoReadings)
    found = measure_nvml(workload, progress=ignore, rounds=1, block_seconds=0.001)
    assert found.metrics["nvml_process_peak_bytes"] == 300


class NoReadings:
    """A sampler that was never answered."""

    def __init__(self, read: Any, interval_seconds: float) -> None:
        self.samples = [(0.0, None)]

    def __enter__(self) -> NoReadings:
        return self

    def __exit__(self, *exception: object) -> None:
        pass


def test_a_hidden_process_is_none_throughout(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml(processes=failure(pynvml.NVML_ERROR_NO_PERMISSION))
    found = measure_nvml(as_if_on_a_gpu(monkeypatch, fake), progress=ignore, rounds=1, block_seconds=0.001)
    assert found.metrics["nvml_process_peak_bytes"] is None
    assert "Permissions" in str(found.metrics["nvml_process_peak_bytes_reason"])


@pytest.mark.parametrize("measure", [measure_nvml, measure_memory_history, measure_energy])
def test_the_cpu_is_unsupported(measure: Any) -> None:
    with pytest.raises(NotImplementedError):
        measure(build_workload(CASE), progress=ignore)


def test_a_planted_leak_is_found_to_the_byte() -> None:
    found = measure_leak(build_workload(CASE.replace(model=f"{__name__}:Leaking")), progress=ignore)
    KEPT.clear()
    slope = 2 * 10 * 4  # batch, classes, bytes
    assert found.metrics["leak_bytes_per_step"] == pytest.approx(slope)
    assert found.metrics["leak_low_bytes_per_step"] == pytest.approx(slope)


@pytest.mark.parametrize("strategy", ["stored", "reconstructed", "checkpointed", "recursive"])
def test_no_strategy_leaks(strategy: str) -> None:
    case = Case(model="revnet-38", strategy=strategy, batch_size=2, image_size=8)
    found = measure_leak(build_workload(case), progress=ignore, steps=4).metrics
    assert found["leak_bytes_per_step"] == found["leak_high_bytes_per_step"] == 0


def test_the_interval_of_a_slope() -> None:
    """By hand: values 0, 2, 1, 3 have slope 0.8, residuals of square sum 1.8, stderr sqrt(0.9 / 5), t(2) = 4.30265."""
    slope, low, high = slope_with_interval([0, 2, 1, 3])
    assert slope == pytest.approx(0.8)
    half = 4.302652729749464 * (0.9 / 5) ** 0.5
    assert (low, high) == (pytest.approx(0.8 - half), pytest.approx(0.8 + half))


def test_a_leak_of_compiled_code_is_not_looked_for_on_the_cpu() -> None:
    budget = Case(model="revnet-38", image_size=8, batch_size=2, strategy="torch_budget")
    for case in (CASE.replace(compile=True), budget):
        with pytest.raises(NotImplementedError, match="the tracker can't see"):
            measure_leak(build_workload(case), progress=ignore)
