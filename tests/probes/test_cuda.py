"""The paths that need a GPU, with the real calls; skipped with a word where there is none."""

from __future__ import annotations

import pytest
import torch

from revbench.backprop import reversible
from revbench.case import Case
from revbench.runner.client import WorkerServer
from tests.backprop.chains import relative_difference
from tests.backprop.test_gradients import Bounded

pytestmark = pytest.mark.cuda
CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=16, device="cuda")


def test_time_and_memory_in_workers(server: WorkerServer) -> None:
    time = server.measure(CASE, "time", options={"max_seconds": 0.2})
    assert time["status"] == "ok", time
    assert 0 < time["metrics"]["kernel_busy_share"] <= 1
    assert time["metrics"]["launch_bound"] in (0, 1)
    memory = server.measure(CASE, "memory")["metrics"]
    assert memory["peak_bytes"] <= memory["allocated_peak_bytes"] <= memory["reserved_peak_bytes"]
    assert memory["nvml_process_bytes"] is None or memory["nvml_process_bytes"] > memory["reserved_peak_bytes"]


def test_out_of_memory_is_a_row(server: WorkerServer) -> None:
    found = server.measure(CASE.replace(batch_size=10_000_000), "time")
    assert found["status"] == "oom"


def test_gradients_and_dropout_masks() -> None:
    chain = reversible([(Bounded(4, ["linear", "dropout"]), Bounded(4, ["linear"])) for _ in range(3)]).double().cuda()
    x = torch.randn(8, 8, dtype=torch.float64, device="cuda")
    found = []
    for strategy in ("stored", "reconstructed", "checkpointed", "recursive"):
        chain.strategy = strategy  # type: ignore[assignment]
        torch.manual_seed(3)
        found.append(
            [*torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())), torch.cuda.get_rng_state()]
        )
    for other in found[1:]:
        assert relative_difference(other[:-1], found[0][:-1]) < 1e-9
        assert torch.equal(other[-1], found[0][-1])


def test_the_parent_never_touches_cuda(server: WorkerServer) -> None:
    server.measure(CASE, "flops")
    assert server.environment()["accelerators"]
