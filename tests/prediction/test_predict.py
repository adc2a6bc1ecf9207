"""Predictions against what is measured, and against PyTorch's own tracker."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode

from revbench.backprop import reversible
from revbench.case import Case
from revbench.choices import STRATEGIES
from revbench.errors import UserError
from revbench.paper.catalogue import CATALOGUE
from revbench.paper.residual import RESIDUAL
from revbench.prediction import predict
from revbench.prediction.gpu import block_bytes
from revbench.prediction.kernels import workspace_bytes
from revbench.prediction.predictor import Predictor
from revbench.probes.declared import PHASES
from revbench.probes.tracked_step import TrackedStep, track_step
from revbench.workload import build_workload
from tests.prediction.factories import LOOKING

MIB = 2**20


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
        if strategy == "reconstructed" and not CATALOGUE[model].reversible:
            continue
        length = 32 if CATALOGUE[model].item == "token" else None
        case = Case(model=model, strategy=strategy, batch_size=16, sequence_length=length)
        found += [case] if strategy == "stored" else [case, case.replace(nonreversible="recomputed")]
    return found


SMALL = [*(name for name, a in RESIDUAL.items() if a.stem == "cifar"), "gpt-1m", "revgpt-1m", "revvit-1m"]
QUICK = ("resnet-32", "revgpt-1m")  # revnet-38 is among the other cases below


@pytest.mark.parametrize("model", [pytest.param(m, marks=[] if m in QUICK else pytest.mark.slow) for m in SMALL])
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


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
@pytest.mark.parametrize("name", LOOKING)
def test_equals_what_is_measured_of_factories_that_look_at_data(name: str, strategy: str) -> None:
    case = Case(model=f"tests.prediction.factories:{name}", batch_size=16, strategy=strategy)
    try:
        found = predict(case)
    except UserError as error:
        if name != "sparse" or "has no fake kernel" not in str(error) or torch.__version__ >= "2.14":
            raise
        pytest.skip("this PyTorch can't add sparse tensors that are fake")
    if name == "sparse":  # whose gradients are not seen after backward
        assert found.step.peak_bytes == measured(case).peak_bytes
    else:
        assert found.step == measured(case)
    assert found.parameters == sum(p.numel() for p in build_workload(case).model.parameters())


def test_a_network_that_was_predicted_is_as_real_afterwards() -> None:
    predict(Case(model="tests.prediction.factories:constants"))
    assert not isinstance(torch.ones(2), FakeTensor)
    assert torch._subclasses.FakeTensor is FakeTensor


@pytest.mark.parametrize(
    "size", [(3, 5, 8, 16), (70, 3, 16, 64), (40, 64, 64, 64), (400, 50, 32, 32), (36, 300, 8, 128)]
)
def test_the_workspace_of_recurrent_layers(size: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small layers exact, of larger ones, where it follows from smaller, within a hundredth."""
    steps, items, features, hidden = size
    layer = nn.LSTM(features, hidden)
    arguments = (
        torch.zeros(steps, items, features), *(w.detach() for w in layer.all_weights[0]), torch.zeros(items, hidden),
        torch.zeros(items, hidden), False, [], 2, hidden, 1, True, False, False, True,
    )  # fmt: skip
    expected = torch.ops.aten.mkldnn_rnn_layer(*arguments)[3].nbytes
    large = 2 * steps * items * 4 * hidden * (features + hidden) > 2**28
    assert workspace_bytes(*arguments) == pytest.approx(expected, rel=0.001 if large else 0)
    monkeypatch.setattr("revbench.prediction.kernels._OPERATIONS", 1 << 20)
    assert workspace_bytes(*arguments) == pytest.approx(expected, rel=0.01)


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


def test_autocast_of_a_gpu_normalises_in_float32() -> None:
    """By hand: the copy in float32 that layer norm keeps of its input, in place of the input in bfloat16."""
    case = Case(model=f"{__name__}:normed_line", batch_size=512, image_size=2, autocast="bfloat16")
    here, there = (predict(case.replace(device=device)).step.kept_bytes for device in ("cpu", "cuda"))
    assert there - here == pytest.approx(512 * 64 * 2, abs=8 * 512)


def normed_line() -> nn.Module:
    """A classifier with a layer norm in the middle."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 64), nn.LayerNorm(64), nn.Linear(64, 10))


def test_memory_of_a_network_that_this_machine_could_not_hold() -> None:
    case = Case(model="revnet-104", batch_size=4096, device="cuda")
    stored, reconstructed = (predict(case.replace(strategy=s)).step for s in ("stored", "reconstructed"))
    assert stored.peak_bytes > 2**39 > 2 * reconstructed.peak_bytes
    assert stored.phase_peak_places["backward"].startswith("head")
    assert set(stored.phase_peak_bytes) == set(PHASES)


def normed() -> nn.Module:
    """A chain whose functions an autocast of CUDA computes in float32."""

    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.Dropout(0.1))

    return nn.Sequential(nn.Flatten(), nn.Linear(192, 128), reversible([(half(), half())]), nn.Linear(128, 10))


@pytest.mark.parametrize("strategy", ["reconstructed", "checkpointed", "torch_checkpoint"])
def test_what_a_gpu_does_otherwise_it_also_does_in_the_recomputation(strategy: str) -> None:
    """One block: what a recomputation keeps is what the first pass kept, so no peak of a recomputing strategy is below."""
    case = Case(model=f"{__name__}:normed", batch_size=4096, image_size=8, autocast="bfloat16", device="cuda")
    stored, again = (predict(case.replace(strategy=s)).step for s in ("stored", strategy))
    assert again.kept_bytes < stored.kept_bytes
    assert again.phase_peak_bytes["backward"] >= 0.75 * stored.phase_peak_bytes["backward"]


def test_dropout_of_a_gpu_keeps_a_byte() -> None:
    case = Case(model=f"{__name__}:dropped", batch_size=1024, image_size=16)
    here, there = (predict(case.replace(device=device)).step.kept_bytes for device in ("cpu", "cuda"))
    assert here - there == pytest.approx(3 * 1024 * 768, rel=0.01)


def dropped() -> nn.Module:
    """A classifier with dropout."""
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 768), nn.Dropout(0.5), nn.Linear(768, 10))


class Attention(nn.Module):
    """Of 4 heads, by the function or by PyTorch's layer."""

    def __init__(self, layer: bool) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(64, 192), nn.Linear(64, 64)
        self.layer = nn.MultiheadAttention(64, 4, dropout=0.1, batch_first=True) if layer else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.layer is not None:
            return self.layer(x, x, x, need_weights=False)[0]
        q, k, v = self.before(x).view(*x.shape[:2], 3, 4, 16).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
        return self.after(out.transpose(1, 2).flatten(2))


def attending(layer: bool = False) -> object:
    """Sequences of 256 vectors."""
    make_batch = lambda n, g: (torch.randn(n, 256, 64, generator=g), None)  # noqa: E731
    return Attention(layer), make_batch, lambda out, _: out.sum()


@pytest.mark.parametrize("layer", [False, True])
@pytest.mark.parametrize("autocast", ["none", "bfloat16"])
def test_a_gpu_keeps_no_scores(layer: bool, autocast: str) -> None:
    case = Case(model=f"{__name__}:attending(layer={layer})", batch_size=8, device="cuda", autocast=autocast)
    found = predict(case)
    size = 2 if autocast == "bfloat16" else 4
    scores, vectors, sums = 8 * 4 * 256 * 256 * size, 8 * 256 * 64 * size, 8 * 4 * 256 * 4
    # queries, keys, values, what comes out, the input in autocast's dtype; sums of exponentials. In float32 PyTorch's layer
    # brings its input and what comes out into another layout.
    expected = (4 + (autocast != "none") + 2 * (layer and autocast == "none")) * vectors + sums
    assert found.step.kept_bytes == pytest.approx(expected, abs=16 * 1024)
    assert found.step.kept_bytes < scores
    assert predict(case.replace(device="cpu")).step.kept_bytes > scores
    product = 2 * 8 * 4 * 256 * 256 * 16
    assert found.step_flops == pytest.approx(7 * product + 3 * 2 * 8 * 256 * 4 * 64 * 64, rel=0.1)


def test_adamw_counts_its_steps_on_the_host() -> None:
    case = Case(model=f"{__name__}:line", batch_size=10, image_size=2, optimizer="adamw", device="cuda")
    assert predict(case).step.optimizer_state_bytes == 2 * (512 + 512)


@pytest.mark.parametrize(
    ("nbytes", "block"),
    [
        (1, 512),
        (512, 512),
        (513, 1024),
        (9 * MIB + 1, 9 * MIB + 512),
        (17 * MIB + MIB // 2, 18 * MIB),
        (12 * MIB + MIB // 2, 12 * MIB + MIB // 2),
        (12 * MIB, 12 * MIB),
    ],
)
def test_blocks_of_the_cuda_allocator(nbytes: int, block: int) -> None:
    assert block_bytes(nbytes) == block


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (
            Case(model="resnet-101", image_size=32, batch_size=1),
            "batch 1 can't be predicted: ValueError: Expected more than 1",
        ),
        (Case(model=f"{__name__}:line", image_size=5), "must have same reduction dim"),
    ],
)
def test_what_a_network_raises_is_one_line(case: Case, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        predict(case)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "operator"),
    [("Opaque", "revbench_tests.opaque"), ("Dynamic", "aten.nonzero"), ("Counting", "_local_scalar_dense")],
)
def test_an_operator_that_can_not_be_predicted_is_named(kind: str, operator: str) -> None:
    with pytest.raises(UserError, match=re.escape(operator)) as caught:
        predict(Case(model=f"tests.prediction.operators:network(kind={kind})"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_network_that_asks_its_data_is_answered_as_a_real_one(device: str) -> None:
    curious, plain = (
        Case(model=f"tests.prediction.operators:network(kind={kind})", batch_size=8, device=device)
        for kind in ("Curious", "Conv2d")
    )
    kept = predict(curious).step.kept_bytes - predict(plain).step.kept_bytes
    assert 0 <= kept < 8 * 4 * 32 * 32 * 4  # what it is asked for is multiplied with two, by the real step's answer
    if device == "cpu":
        assert predict(curious).step == measured(curious)


@pytest.mark.parametrize(
    "case", [Case(model="revnet-38", compile=True), Case(model="revnet-38", strategy="reconstructed", certify=True)]
)
def test_what_needs_data_or_a_compiler_is_refused(case: Case) -> None:
    with pytest.raises(NotImplementedError, match=r"omit (compile|certify)"):
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
