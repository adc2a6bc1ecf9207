"""Every strategy's gradient is plain autograd's, in float64 to 1e-9."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import build_model, reversible
from revbench.choices import STRATEGIES
from revbench.paper.residual import RESIDUAL
from tests.backprop.chains import Bounded, gradients, relative_difference

REVNETS = [name for name, a in RESIDUAL.items() if a.family == "revnet"]
CHOICES = [(s, n) for s in STRATEGIES for n in ("kept", "recomputed") if (s, n) != ("stored", "recomputed")]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("revnet-38", "revnet-164") else pytest.mark.slow) for n in REVNETS]
)
def test_every_catalogue_revnet(name: str) -> None:
    imagenet = RESIDUAL[name].stem == "imagenet"
    size, batch = (32, 16) if imagenet else (8, 4)  # 16 values a channel in the last batch norm
    model = build_model(name, image_size=size, strategy="stored").double()
    x, y = torch.randn(batch, 3, size, size, dtype=torch.float64), torch.randint(10, (batch,))

    def gradient() -> list[Tensor]:
        images = x.clone().requires_grad_()
        return list(torch.autograd.grad(F.cross_entropy(model(images), y), [images, *model.parameters()]))

    reference = gradient()
    for strategy, nonreversible in CHOICES[1:]:
        if imagenet and strategy != "reconstructed" and nonreversible == "recomputed":
            continue  # the stem and the head alone, as in the CIFAR networks
        model.set_strategy(strategy, nonreversible)  # type: ignore[arg-type]
        found = gradient()
        assert relative_difference(found[1:], reference[1:]) < 1e-9, (strategy, nonreversible)
        assert relative_difference(found[:1], reference[:1]) < 1e-9, (strategy, nonreversible)


@pytest.mark.parametrize("name", ["resnet-32", "resnet-164"])
def test_resnets(name: str) -> None:
    size = RESIDUAL[name].smallest_image
    model = build_model(name, image_size=size).double()
    x, weight = torch.randn(16, 3, size, size).double(), torch.randn(16, model.architecture.num_classes).double()
    reference = gradients(model, x, weight)
    for strategy in ("checkpointed", "recursive"):
        model.set_strategy(strategy, "recomputed")  # type: ignore[arg-type]
        assert relative_difference(gradients(model, x, weight), reference) < 1e-9


layers = st.lists(st.sampled_from(["linear", "norm", "relu", "gelu", "dropout", "identity"]), max_size=4)


@given(
    pairs=st.lists(st.tuples(layers, layers), min_size=1, max_size=5),
    half=st.integers(1, 6),
    lead=st.lists(st.integers(1, 4), min_size=1, max_size=2),
    as_pair=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_residual_functions(
    pairs: list[tuple[list[str], list[str]]], half: int, lead: list[int], as_pair: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    chain = reversible([(Bounded(half, f), Bounded(half, g)) for f, g in pairs], split_dim=-1).double()
    x, weight = (torch.randn(*lead, 2 * half, dtype=torch.float64) for _ in range(2))

    def run(strategy: str) -> list[Tensor | None]:
        torch.manual_seed(seed)
        chain.strategy = strategy  # type: ignore[assignment]
        images = x.clone().requires_grad_()
        out = chain(tuple(images.chunk(2, -1)) if as_pair else images)
        out = torch.cat(out, -1) if as_pair else out
        return list(torch.autograd.grad((out * weight).sum(), [images, *chain.parameters()], allow_unused=True))

    reference = run("stored")
    for strategy in STRATEGIES[1:]:
        assert relative_difference(run(strategy), reference) < 1e-9


@pytest.mark.parametrize("kept", range(8))
@pytest.mark.parametrize("as_pair", [True, False])
def test_kept_half_blocks(kept: int, as_pair: bool) -> None:
    chain = reversible([(Bounded(3, ["linear", "dropout"]), Bounded(3, ["norm", "linear"])) for _ in range(3)]).double()
    chain.kept_half_blocks = kept
    x = torch.randn(2, 6, dtype=torch.float64)

    def run(strategy: str) -> list[Tensor]:
        torch.manual_seed(1)
        chain.strategy = strategy  # type: ignore[assignment]
        leaf = x.clone().requires_grad_()
        out = chain(tuple(leaf.chunk(2, 1)) if as_pair else leaf)
        out = torch.cat(out, 1) if as_pair else out
        return list(torch.autograd.grad(out.square().sum(), [leaf, *chain.parameters()]))

    assert relative_difference(run("reconstructed"), run("stored")) < 1e-12


def test_against_finite_differences() -> None:
    chain = reversible([(Bounded(2, ["linear"]), Bounded(2, ["linear", "gelu"])) for _ in range(2)]).double()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for strategy in STRATEGIES[1:]:
        chain.strategy = strategy
        assert torch.autograd.gradcheck(chain, (x,))


def test_a_linear_chain_has_its_closed_form() -> None:
    chain = reversible([(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))]).double()
    f, g = (p.item() for p in chain.parameters())
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    y = chain(x)
    y1 = 2.0 + f * 3.0
    assert y.tolist() == [[y1, 3.0 + g * y1]]
    y.sum().backward()  # y1 + x2 + g y1, y1 = x1 + f x2
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([1 + g, 1 + f * (1 + g)], rel=1e-15)
    assert [p.grad.item() for p in chain.parameters()] == pytest.approx([3.0 * (1 + g), y1], rel=1e-15)


def test_the_inverse_gives_the_input_back() -> None:
    chain = reversible([(Bounded(4, ["linear"]), Bounded(4, ["norm", "linear"])) for _ in range(6)]).double()
    x = torch.randn(5, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(chain.inverse(chain(x)), x, rtol=0, atol=1e-13)
