"""Time, memory, operations and parameters of a step."""

from __future__ import annotations

import itertools
import shutil
import statistics

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.case import Case
from revbench.probes.clock import measure_time, measure_time_interleaved, orders
from revbench.probes.flops import measure_flops
from revbench.probes.memory import measure_memory
from revbench.probes.parameters import measure_parameters
from revbench.workload import build_workload

SMALL = Case(model="revnet-38", image_size=8, batch_size=4)
QUIET = {"progress": lambda _: None}


def test_time_keeps_every_sample_and_its_phases() -> None:
    found = measure_time(build_workload(SMALL), min_rounds=4, max_seconds=0.0, warmup_rounds=1, **QUIET)  # type: ignore[arg-type]
    assert found.metrics["rounds"] == 4
    assert {len(values) for values in found.samples.values()} == {4}
    for i, step in enumerate(found.samples["step_seconds"]):
        phases = [found.samples[f"{phase}_seconds"][i] for phase in ("forward", "backward", "optimizer")]
        assert min(phases) > 0
        assert step == pytest.approx(sum(phases))
    assert found.metrics["step_seconds"] == statistics.median(found.samples["step_seconds"])


def test_time_goes_on_for_as_long_as_asked() -> None:
    found = measure_time(build_workload(SMALL), min_rounds=1, max_seconds=0.5, warmup_rounds=0, **QUIET)  # type: ignore[arg-type]
    assert sum(found.samples["step_seconds"][:-1]) < 0.5


def steep() -> tuple[object, ...]:
    """A chain whose squared loss diverges at the paper's learning rate."""

    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8))

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = 10 * torch.randn(count, 16, generator=generator)
        return x, -x

    net = revbench.reversible([(half(), half()) for _ in range(4)])
    return net, make_batch, lambda out, target: (out - target).square().sum()


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
def test_measured_steps_do_not_diverge_unless_they_are_told_to(strategy: str) -> None:
    case = Case(model=f"{__name__}:steep", strategy=strategy, batch_size=8)
    workload = build_workload(case)
    before = [p.detach().clone() for p in workload.model.parameters()]
    measure_time(workload, min_rounds=3, max_seconds=0.0, **QUIET)  # type: ignore[arg-type]
    assert all(map(torch.equal, before, workload.model.parameters()))
    with pytest.raises(FloatingPointError):
        measure_time(build_workload(case.replace(learning_rate=0.1)), min_rounds=9, max_seconds=0.0, **QUIET)  # type: ignore[arg-type]


def test_interleaved_times_are_the_steps_of_each() -> None:
    small, large = SMALL, SMALL.replace(batch_size=32)
    found = measure_time_interleaved([build_workload(small), build_workload(large)], rounds=5, **QUIET)  # type: ignore[arg-type]
    assert [f.metrics["rounds"] for f in found] == [5, 5]
    for one in found:
        assert one.metrics["step_seconds"] == statistics.median(one.samples["step_seconds"])
        assert {len(values) for values in one.samples.values()} == {5}
    assert found[0].metrics["step_seconds"] < found[1].metrics["step_seconds"]  # type: ignore[operator]


@pytest.mark.parametrize("count", [3, 4, 9])
def test_nobody_always_follows_the_same_neighbour(count: int) -> None:
    rounds = list(orders(count, 15))
    assert rounds == list(orders(count, 15))
    assert all(sorted(order) == list(range(count)) for order in rounds)
    turns = list(itertools.chain.from_iterable(rounds))
    for one in range(count):
        before = [a for a, b in itertools.pairwise(turns) if b == one]
        commonest = max(before.count(other) for other in range(count))
        assert commonest <= 0.7 * len(before), (one, before)


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
