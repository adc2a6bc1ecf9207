"""Predictions against what is measured, and against PyTorch's own tracker."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from revbench.case import Case
from revbench.errors import UserError
from revbench.models.catalogue import CATALOGUE
from revbench.prediction import predict
from revbench.prediction.predict import Predictor
from revbench.probes.clock import PHASES
from revbench.probes.tracked_step import TrackedStep, track_step
from revbench.words import STRATEGIES
from revbench.workload import build_workload


def measured(case: Case) -> TrackedStep:
    """A real step, after the one that makes the optimizer's state."""
    workload = build_workload(case)
    inputs, targets = workload.batch()
    workload.forward(inputs, targets).backward()
    workload.optimizer.step()
    return track_step(workload, inputs, targets)


def cases(model: str) -> list[Case]:
    """Every way to run a network."""
    found = []
    for strategy in STRATEGIES:
        if strategy == "reconstructed" and CATALOGUE[model].family == "resnet":
            continue
        case = Case(model=model, strategy=strategy, batch_size=16)
        found += [case] if strategy == "stored" else [case, case.replace(nonreversible="recomputed")]
    return found


CIFAR = [name for name, a in CATALOGUE.items() if a.stem == "cifar"]
QUICK = ("resnet-32", "revnet-38")


@pytest.mark.parametrize("model", [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in CIFAR])
def test_equals_what_is_measured(model: str) -> None:
    predictor = Predictor()
    for case in cases(model):
        assert predictor.predict(case).step == measured(case), case.id


@pytest.mark.parametrize(
    "case",
    [
        Case(model="revnet-38", strategy="reconstructed", batch_size=4, optimizer="adamw", dtype="float64"),
        Case(model="revnet-38", strategy="reconstructed", batch_size=4, autocast="bfloat16"),
        Case(model="revnet-38", strategy="reconstructed", batch_size=4, dtype="bfloat16", memory_format="channels_last"),
        Case(model="revnet-38", strategy="reconstructed", batch_size=4, kept_half_blocks=2),
        Case(model="revbench.peers:chain(blocks=3)", strategy="torch_selective", batch_size=4),
    ],
    ids=lambda case: case.id,
)  # fmt: skip
def test_equals_what_is_measured_of_unusual_cases(case: Case) -> None:
    found, real = predict(case).step, measured(case)
    assert found.phase_peak_bytes["backward"] == pytest.approx(real.phase_peak_bytes["backward"], rel=0.005)
    assert found.kept_bytes == pytest.approx(real.kept_bytes, rel=0.005)
    assert found.optimizer_state_bytes == real.optimizer_state_bytes


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_equals_mem_tracker(name: str) -> None:
    case = Case(model=f"torchvision.models:{name}", batch_size=4, image_size=64)
    workload = build_workload(case)
    inputs, targets = workload.batch()
    workload.forward(inputs, targets).backward()
    workload.optimizer.step()
    workload.optimizer.zero_grad(set_to_none=True)
    tracker = MemTracker()
    tracker.track_external(workload.model, workload.optimizer, inputs, targets)
    with tracker:
        workload.forward(inputs, targets).backward()
        workload.optimizer.step()
    expected = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert predict(case).step.peak_bytes == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_counts_the_operations_that_pytorch_counts(strategy: str) -> None:
    case = Case(model="revnet-38", strategy=strategy, batch_size=2)
    workload = build_workload(case)
    with FlopCounterMode(display=False) as counter:
        workload.forward(*workload.batch()).backward()
    assert predict(case).step_flops == counter.get_total_flops()


def test_one_predictor_serves_many_cases() -> None:
    predictor = Predictor()
    case = Case(model="revnet-38", strategy="reconstructed", batch_size=4)
    others = [case.replace(batch_size=9), case.stored(), case]
    for other in others:
        assert predictor.predict(other) == predict(other), other.id


def test_a_gpu_rounds_and_updates_all_parameters_at_once() -> None:
    """By hand: one linear layer, 10 images of 2 x 2 pixels."""

    found = predict(Case(model="tests.prediction.test_predict:line", batch_size=10, image_size=2, device="cuda"))
    step = found.step
    assert found.parameters == 12 * 10 + 10
    assert step.parameter_bytes == step.gradient_bytes == step.optimizer_state_bytes == 512 + 512
    assert step.batch_bytes == 512 + 512  # 480 bytes of images, 80 of labels
    # foreach: the gradients of the weights with their decay, while gradients and momentum are alive.
    assert step.phase_peak_bytes["optimizer"] == step.steady_bytes + step.gradient_bytes + 512
    assert all(value % 512 == 0 for value in step.phase_peak_bytes.values())


def line() -> nn.Module:
    """A linear classifier of images of 2 x 2 pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))


def test_autocast_of_a_gpu_computes_the_loss_in_float32() -> None:
    case = Case(model="tests.prediction.test_predict:line", batch_size=512, image_size=2, autocast="bfloat16")
    here, there = (predict(case.replace(device=device)).step.kept_bytes for device in ("cpu", "cuda"))
    logits = 512 * 10
    # In place of log-softmax's output in bfloat16, which the CPU keeps, one in float32; and the copies of the weights.
    assert here < there <= here + 2 * logits + 3 * 512
    with torch.no_grad():
        model, x = line(), torch.randn(512, 3, 2, 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype == torch.bfloat16


def test_memory_of_a_network_that_this_machine_could_not_hold() -> None:
    case = Case(model="revnet-104", batch_size=4096, device="cuda")
    stored, reconstructed = (predict(case.replace(strategy=s)).step for s in ("stored", "reconstructed"))
    assert stored.peak_bytes > 2**39 > 2 * reconstructed.peak_bytes
    assert stored.phase_peak_places["backward"].startswith("head")
    assert set(stored.phase_peak_bytes) == set(PHASES)


@pytest.mark.parametrize("kind", ["Opaque", "Curious"])
def test_an_operator_without_a_fake_kernel_is_named(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        predict(Case(model=f"tests.prediction.operators:network(kind={kind})"))
    assert ("revbench_tests.opaque" if kind == "Opaque" else "_local_scalar_dense") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "case", [Case(model="revnet-38", compile=True), Case(model="revnet-38", strategy="reconstructed", certify=True)]
)
def test_what_needs_data_or_a_compiler_is_refused(case: Case) -> None:
    with pytest.raises(NotImplementedError, match=r"leave (compile|certify) away"):
        predict(case)


def test_the_timeline_has_the_peak() -> None:
    step = predict(Case(model="revnet-38", strategy="reconstructed", batch_size=4)).step
    assert max(step.timeline["live_bytes"]) == step.peak_bytes
    assert max(step.timeline["gradient_bytes"]) == step.gradient_bytes
    assert list(dict.fromkeys(step.timeline["phase"])) == list(PHASES)


@pytest.mark.slow
def test_needs_little_memory_itself() -> None:
    code = (
        "import resource; from revbench.case import Case; from revbench.prediction import predict;"
        "predict(Case(model='revnet-104', strategy='reconstructed', batch_size=256, device='cuda'));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(said) < 1.5 * 2**30
