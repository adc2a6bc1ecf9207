"""Time, memory, operations and parameters of a step."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.case import Case
from revbench.probes.flops import measure_flops
from revbench.probes.memory import measure_memory
from revbench.probes.parameters import measure_parameters
from revbench.workload import build_workload

SMALL = Case(model="revnet-38", image_size=8, batch_size=4)
QUIET = {"progress": lambda _: None}


def test_the_allocator_agrees_with_the_tracker() -> None:
    for strategy in ("stored", "reconstructed"):
        case = SMALL.replace(strategy=strategy, image_size=16, batch_size=16)
        m = measure_memory(build_workload(case), **QUIET).metrics  # type: ignore[arg-type]
        live, allocated = m["activation_peak_bytes"], m["allocated_activation_peak_bytes"]
        assert live <= allocated <= 1.3 * live  # type: ignore[operator]


@torch.library.custom_op("revbench_tests::from_elsewhere", mutates_args=())
def from_elsewhere(x: Tensor) -> Tensor:
    """Its result lies in memory that PyTorch's allocator never gave out."""
    return torch.from_numpy(np.ones((1000, 1000), dtype=np.float32))


class FromElsewhere(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 10)

    def forward(self, x: Tensor) -> Tensor:
        noise = from_elsewhere(x.detach())
        return self.linear(x.flatten(1)) * noise[0, :10] + noise.sum()


class KeepsThings(nn.Module):
    """Constants in attributes, of which views are taken, and an activation of the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 10)
        self.table = [torch.randn(10, 100_000)]

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x.flatten(1))
        self.kept = torch.ones(100_000) * y.detach().sum()
        return y + (y @ self.table[0])[:, :10] + (self.table[0].t()[:10] @ y.t()).t()


def test_what_was_there_before_is_no_contradiction() -> None:
    case = Case(model="tests.probes.test_step_probes:KeepsThings", image_size=8, batch_size=2)
    found = measure_memory(build_workload(case), **QUIET).metrics  # type: ignore[arg-type]
    live, allocated = found["activation_peak_bytes"], found["allocated_activation_peak_bytes"]
    assert 0 < live <= 1.01 * allocated  # type: ignore[operator]


def test_live_tensors_that_no_allocator_gave_out_are_not_published() -> None:
    case = Case(model="tests.probes.test_step_probes:FromElsewhere", image_size=8, batch_size=2)
    found = measure_memory(build_workload(case), **QUIET)  # type: ignore[arg-type]
    for name in ("peak_bytes", "activation_peak_bytes", "forward_peak_bytes", "kept_bytes", "forward_peak_place"):
        assert found.metrics[name] is None
        assert "but the allocator gave out" in str(found.metrics[f"{name}_reason"])
    assert found.metrics["parameter_bytes"] == 4 * (3 * 8 * 8 * 10 + 10)
    assert found.series == {}


@pytest.mark.skipif(shutil.which("g++") is None, reason="TorchInductor needs a C++ compiler on the CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
def test_compiled_cases_say_what_can_not_be_seen() -> None:
    case = SMALL.replace(model="tests.probes.test_step_probes:tiny_chain", compile=True, strategy="reconstructed")
    m = measure_memory(build_workload(case), **QUIET).metrics  # type: ignore[arg-type]
    assert m["activation_peak_bytes"] is None
    assert "compiled" in str(m["activation_peak_bytes_reason"])
    assert m["allocated_activation_peak_bytes"] > 0  # type: ignore[operator]
    counted = measure_flops(build_workload(case), **QUIET).metrics  # type: ignore[arg-type]
    eager = measure_flops(build_workload(case.replace(compile=False)), **QUIET).metrics  # type: ignore[arg-type]
    assert counted == {**eager, "counted": "without compilation"}
    with pytest.raises(NotImplementedError, match="torch_budget"):
        measure_flops(build_workload(case.replace(compile=False, strategy="torch_budget")), **QUIET)  # type: ignore[arg-type]


def tiny_chain() -> tuple[object, ...]:
    net = nn.Sequential(revbench.reversible([(nn.Linear(4, 4), nn.Linear(4, 4))]), nn.Linear(8, 3))
    return net, lambda n, g: (torch.randn(n, 8, generator=g), torch.randint(3, (n,), generator=g)), None


def test_memory_of_each_phase() -> None:
    found = measure_memory(build_workload(SMALL), **QUIET)  # type: ignore[arg-type]
    m = found.metrics
    parameters = 464_890 * 4
    assert isinstance(m["steady_bytes"], int)
    # parameters and momentum, running statistics, the batch
    assert 2 * parameters < m["steady_bytes"] < 2.1 * parameters
    phases = [m[f"{phase}_peak_bytes"] for phase in ("forward", "backward", "optimizer")]
    assert m["peak_bytes"] == max(phases)  # type: ignore[type-var]
    assert m["activation_peak_bytes"] == m["peak_bytes"] - m["steady_bytes"]  # type: ignore[operator]
    assert m["rss_peak_bytes"] >= m["rss_before_bytes"] > 0  # type: ignore[operator]
    series = found.series
    assert {len(column) for column in series.values()} == {len(series["operation"])}
    assert max(series["live_bytes"]) == m["peak_bytes"]  # type: ignore[type-var]
    assert list(dict.fromkeys(series["phase"])) == ["forward", "backward", "optimizer"]


def test_reconstruction_needs_less_memory_and_a_third_more_operations() -> None:
    stored, ours = (
        measure_memory(build_workload(SMALL.replace(strategy=s, image_size=32)), **QUIET).metrics  # type: ignore[arg-type]
        for s in ("stored", "reconstructed")
    )
    assert ours["activation_peak_bytes"] < 0.5 * stored["activation_peak_bytes"]  # type: ignore[operator]
    flops = [
        measure_flops(build_workload(SMALL.replace(strategy=s)), **QUIET).metrics  # type: ignore[arg-type]
        for s in ("stored", "reconstructed")
    ]
    assert flops[0]["forward_flops"] == flops[1]["forward_flops"]
    assert 1.2 < flops[1]["step_flops"] / flops[0]["step_flops"] <= 1.334  # type: ignore[operator]


def test_recomputing_the_rest_saves_more() -> None:
    kept, recomputed = (
        measure_memory(
            build_workload(SMALL.replace(strategy="reconstructed", nonreversible=n, image_size=32)),
            **QUIET,  # type: ignore[arg-type]
        ).metrics["activation_peak_bytes"]
        for n in ("kept", "recomputed")
    )
    assert recomputed < kept  # type: ignore[operator]


def test_flops_of_a_convolution_by_hand() -> None:
    found = measure_flops(
        build_workload(Case(model="tests.probes.test_step_probes:one_convolution", batch_size=2)), **QUIET
    )  # type: ignore[arg-type]
    forward = 2 * 2 * 5 * 3 * 9 * 8 * 8  # 2 images, 5 outputs, 3 inputs, 3x3, 8x8 pixels, twice for multiply and add
    assert found.metrics["forward_flops"] == forward
    assert found.metrics["backward_flops"] == forward  # the weight's gradient; the image needs none


def one_convolution() -> object:
    import torch
    from torch import nn

    def make_batch(count: int, generator: torch.Generator) -> tuple[torch.Tensor, None]:
        return torch.randn(count, 3, 8, 8, generator=generator), None

    return nn.Conv2d(3, 5, 3, padding=1, bias=False), make_batch, lambda out, _: out.sum()


def test_parameters() -> None:
    found = measure_parameters(build_workload(SMALL), **QUIET).metrics  # type: ignore[arg-type]
    assert found == {"parameters": 464_890, "strategies": "stored, reconstructed, checkpointed, recursive"}
