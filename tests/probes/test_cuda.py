"""The paths that need a GPU, with the real calls; skipped with a word where there is none."""

from __future__ import annotations

import pytest
import torch

from revbench.backprop import reversible
from revbench.case import Case
from revbench.numerics.drift import drift
from revbench.paper.published import TABLE_2
from revbench.prediction.predictor import Predictor
from revbench.runner.client import WorkerServer
from revbench.workload import build_workload
from tests.backprop.chains import Bounded, relative_difference

pytestmark = pytest.mark.cuda
CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=16, device="cuda")


def test_time_and_memory_in_workers(server: WorkerServer) -> None:
    time = server.measure([CASE], "time", options={"max_seconds": 0.2})
    assert time["status"] == "ok", time
    timed = time["measurements"][0]["metrics"]
    if timed["kernel_busy_share"] is None:
        assert "CUPTI" in timed["kernel_busy_share_reason"]
    else:
        assert 0 < timed["kernel_busy_share"] <= 1
        assert timed["launch_bound"] in (0, 1)
    memory = server.measure([CASE], "memory")["measurements"][0]["metrics"]
    assert memory["peak_bytes"] <= memory["allocated_peak_bytes"] <= memory["reserved_peak_bytes"]
    assert memory["nvml_process_bytes"] is None or memory["nvml_process_bytes"] > memory["reserved_peak_bytes"]


def test_out_of_memory_is_a_row(server: WorkerServer) -> None:
    # 2.5 GB of images on the host, and hundreds of activations on the GPU.
    found = server.measure([Case(model="resnet-101", batch_size=4096, device="cuda")], "time")
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


@pytest.mark.parametrize("name", ["revgpt-1m", "revvit-1m"])
def test_gradients_of_transformers(name: str) -> None:
    built = build_workload(Case(model=name, dtype="float64", batch_size=2, device="cuda"))
    inputs, targets = built.batch()
    found = []
    for strategy in ("stored", "reconstructed", "checkpointed", "recursive"):
        built.model.strategy = strategy  # type: ignore[assignment]
        built.model.zero_grad(set_to_none=True)
        found.append(list(built.gradient(inputs, targets).values()))
    for other in found[1:]:
        assert relative_difference(other, found[0]) < 1e-9


def test_the_parent_never_touches_cuda(server: WorkerServer) -> None:
    server.measure([CASE], "flops")
    assert server.environment()["accelerators"]


TABLE_2 = [(row.model, 16 if row.dataset == "ImageNet" else 100) for row in TABLE_2]


@pytest.mark.parametrize(("model", "batch_size"), TABLE_2, ids=[model for model, _ in TABLE_2])
def test_predicted_is_allocated_without_workspace(server: WorkerServer, model: str, batch_size: int) -> None:
    """To 3 % or 8 MiB, whichever is more; NVML's high-water mark to 5 % with workspace, cache and context as measured."""
    predictor = Predictor()
    for strategy in predictor.strategies(Case(model=model, device="cuda")):
        case = Case(model=model, strategy=strategy, batch_size=batch_size, device="cuda")
        row = server.measure([case], "memory", options={"timeline": False})
        assert row["status"] == "ok", row
        found = row["measurements"][0]["metrics"]
        predicted = predictor.predict(case).step.peak_bytes
        without = found["allocated_peak_bytes"] - found["workspace_bytes"]
        assert predicted == pytest.approx(without, rel=0.03, abs=8 * 2**20), case.id
        if found["nvml_process_bytes"] is not None:
            stated = found["workspace_bytes"] + found["cache_bytes"] + found["context_bytes"]
            assert predicted + stated == pytest.approx(found["nvml_process_bytes"], rel=0.05), case.id


def test_the_sampler_costs_less_than_a_percent(server: WorkerServer) -> None:
    # So large a batch that the GPU is what is timed: where the host is, its own noise is larger by far.
    row = server.measure([CASE.replace(batch_size=2048)], "nvml")
    assert row["status"] == "ok", row
    metrics = row["measurements"][0]["metrics"]
    assert abs(metrics["sampler_slowdown"]) < 0.01
    assert metrics["nvml_process_peak_bytes"] is None or metrics["nvml_process_peak_bytes"] > 0


def test_history_and_energy(server: WorkerServer) -> None:
    history = server.measure([CASE], "memory_history")["measurements"][0]
    memory = server.measure([CASE], "memory")["measurements"][0]["metrics"]
    for kind in ("requested", "reserved"):
        assert max(history["series"][f"{kind}_bytes"]) == pytest.approx(memory[f"{kind}_peak_bytes"], rel=0.02)
    energy = server.measure([CASE], "energy")["measurements"][0]["metrics"]
    assert energy["joules_per_step"] is None or energy["joules_per_step"] > 0


def test_a_memory_limit_is_kept(server: WorkerServer) -> None:
    limit = 2**30
    (fit,) = server.measure([CASE.replace(batch_size=1, memory_limit_bytes=limit)], "fit")["measurements"]
    size = fit["metrics"]["largest_batch_size"]
    fits, does_not = CASE.replace(batch_size=size // 2), CASE.replace(batch_size=2 * size)
    statuses = [
        server.measure([c.replace(memory_limit_bytes=limit)], "time", options={"max_seconds": 0.1})["status"]
        for c in (fits, does_not)
    ]
    assert statuses == ["ok", "oom"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tf32_matmul": True, "tf32_convolution": True},
        {"dtype": "bfloat16"},
        {"autocast": "bfloat16"},
        {"autocast": "float16"},
        {"dtype": "float64"},
    ],
    ids=str,
)
def test_drift_in_every_arithmetic(server: WorkerServer, fields: dict[str, object]) -> None:
    case = CASE.replace(batch_size=8, **fields)
    found = server.measure([case], "drift", options={"draws": 2})
    assert found["status"] == "ok", found
    m = found["measurements"][0]["metrics"]
    assert 0 < m["smooth_error_epsilons"] < 1000
    assert m["trace"] is None
    assert m["coarse_casts"] is None


def test_dropout_of_drift_is_the_same_in_every_dtype() -> None:
    def network() -> torch.nn.Module:
        def half() -> torch.nn.Module:
            return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Dropout(0.3))

        return reversible([(half(), half()) for _ in range(3)])

    record = drift(network, lambda: (torch.randn(16, 16), torch.randn(16, 16)), device="cuda")
    record.assert_within(angle_degrees=1e-3, smooth_amplification=10, activation_error=1e-5)


def test_determinism_is_told(server: WorkerServer) -> None:
    found = server.measure([CASE.replace(deterministic=True)], "determinism")
    if found["status"] == "ok":  # an operation without a deterministic kernel is an error of PyTorch's own
        assert found["measurements"][0]["metrics"]["identical"] == 1
