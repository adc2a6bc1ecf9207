"""Every strategy's gradient is plain autograd's, in float64 to 1e-9."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from revbench import build_model, reversible
from revbench.choices import STRATEGIES
from revbench.paper.residual import RESIDUAL
from tests.backprop.chains import basic_chain, gradients, relative_difference

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


class Bounded(nn.Module):
    """A residual function with a bounded output, of a drawn structure."""

    def __init__(self, width: int, layers: list[str]) -> None:
        super().__init__()
        makers = {
            "linear": lambda: nn.Linear(width, width),
            "norm": lambda: nn.LayerNorm(width),
            "relu": nn.ReLU,
            "gelu": nn.GELU,
            "dropout": lambda: nn.Dropout(0.3),
            "identity": nn.Identity,
        }
        self.body = nn.Sequential(*(makers[layer]() for layer in layers))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.body(x))


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


class TestUses:
    """One chain in the many ways that PyTorch allows."""

    def chain(self) -> nn.Module:
        return reversible([(Bounded(3, ["linear", "gelu"]), Bounded(3, ["linear"])) for _ in range(4)]).double()

    def both(self, run: object) -> tuple[list[Tensor | None], list[Tensor | None]]:
        chain = self.chain()
        results = []
        for strategy in ("stored", "reconstructed"):
            twin = copy.deepcopy(chain)
            twin.strategy = strategy
            results.append(run(twin))  # type: ignore[operator]
        return results[0], results[1]

    def check(self, run: object) -> None:
        stored, ours = self.both(run)
        assert relative_difference(ours, stored) < 1e-9

    def test_only_one_half_of_the_output_is_used(self) -> None:
        x = torch.randn(2, 6).double()
        for half in (0, 1):

            def run(chain: nn.Module, half: int = half) -> list[Tensor | None]:
                leaf = x.clone().requires_grad_()
                chain(tuple(leaf.chunk(2, 1)))[half].square().sum().backward()
                return [leaf.grad, *(p.grad for p in chain.parameters())]

            self.check(run)

    def test_frozen_parameters_and_an_input_without_gradient(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            for p in list(chain.parameters())[:6]:
                p.requires_grad_(False)
            chain(x).square().sum().backward()
            return [p.grad for p in chain.parameters()]

        self.check(run)

    def test_accumulation_and_two_calls_before_backward(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            (chain(x).square().sum() + chain(x * 2).square().sum()).backward()
            chain(x * 3).sum().backward()
            return [p.grad for p in chain.parameters()]

        self.check(run)

    def test_input_and_output_are_used_elsewhere_too(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            leaf = x.clone().requires_grad_()
            trunk = leaf * 2
            out = chain(trunk)
            (out * trunk + out.sin()).sum().backward()
            return [leaf.grad, *(p.grad for p in chain.parameters())]

        self.check(run)

    def test_a_subset_of_gradients(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            wanted = list(chain.parameters())[5:7]
            return list(torch.autograd.grad(chain(x).square().sum(), wanted))

        self.check(run)

    def test_retain_graph(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            loss = chain(x).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()
            return [p.grad for p in chain.parameters()]

        self.check(run)

    def test_parameter_hooks_fire_once(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            for p in chain.parameters():
                p.register_hook(lambda g: g * 0.5)
            chain(x).square().sum().backward()
            return [p.grad for p in chain.parameters()]

        self.check(run)

    def test_a_module_shared_between_blocks(self) -> None:
        x = torch.randn(2, 6).double()
        shared = Bounded(3, ["linear", "norm"]).double()

        def run(strategy: str) -> list[Tensor | None]:
            chain = reversible([(shared, shared), (shared, Bounded(3, ["identity"]))], strategy=strategy)  # type: ignore[arg-type]
            return list(torch.autograd.grad(chain(x).square().sum(), list(shared.parameters())))

        assert relative_difference(run("reconstructed"), run("stored")) < 1e-9

    def test_second_derivatives_raise_one_clear_error(self) -> None:
        x = torch.randn(2, 6).double().requires_grad_()
        for strategy in STRATEGIES[1:]:
            chain = self.chain()
            chain.strategy = strategy
            with pytest.raises(RuntimeError, match="second derivatives"):
                torch.autograd.grad(chain(x).square().sum(), x, create_graph=True)

    @pytest.mark.parametrize("strategy", STRATEGIES[1:])
    def test_a_parameter_changed_before_backward_raises(self, strategy: str) -> None:
        chain = self.chain()
        chain.strategy = strategy
        loss = chain(torch.randn(2, 6).double()).square().sum()
        with torch.no_grad():
            next(chain.parameters()).add_(1)
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()

    def test_an_output_changed_in_place_raises(self) -> None:
        out = self.chain()(torch.randn(2, 6).double())
        out.mul_(2)
        with pytest.raises(RuntimeError, match="inplace"):
            out.sum().backward()

    def test_without_gradient(self) -> None:
        chain, x = self.chain(), torch.randn(2, 6).double()
        with torch.no_grad():
            assert not chain(x).requires_grad
        with torch.inference_mode():
            assert torch.equal(chain(x), chain(x))

    def test_a_tensor_from_outside_that_needs_gradient_raises(self) -> None:
        class Conditioned(nn.Module):
            condition: Tensor

            def forward(self, x: Tensor) -> Tensor:
                return x * self.condition

        f, encoder = Conditioned(), nn.Linear(3, 3)
        for strategy in STRATEGIES[1:]:
            chain = reversible([(f, nn.Linear(3, 3))], strategy=strategy)
            f.condition = encoder(torch.randn(3))
            with pytest.raises(RuntimeError, match="neither its input nor"):
                chain(torch.randn(2, 6, requires_grad=True)).sum().backward()

    def test_parameters_frozen_between_forward_and_backward(self) -> None:
        x = torch.randn(2, 6).double()

        def run(chain: nn.Module) -> list[Tensor | None]:
            leaf = x.clone().requires_grad_()
            loss = chain(leaf).square().sum()
            chain.requires_grad_(False)
            loss.backward()
            return [leaf.grad, *(p.grad for p in chain.parameters())]

        self.check(run)

    def test_complex_streams(self) -> None:
        x = torch.randn(2, 6, dtype=torch.complex128)
        layers = [(nn.Linear(3, 3, dtype=torch.complex128), nn.Linear(3, 3, dtype=torch.complex128)) for _ in range(3)]
        found = []
        for strategy in STRATEGIES:
            leaf = x.clone().requires_grad_()
            reversible(layers, strategy=strategy)(leaf).abs().square().sum().backward()
            assert leaf.grad is not None
            found.append(torch.view_as_real(leaf.grad))
        for other in found[1:]:
            assert relative_difference([other], [found[0]]) < 1e-9

    def test_parametrizations_under_cached(self) -> None:
        x = torch.randn(2, 6)
        chain = reversible([(weight_norm(nn.Linear(3, 3)), weight_norm(nn.Linear(3, 3))) for _ in range(2)])
        found = []
        for strategy in STRATEGIES:
            chain.strategy = strategy
            with parametrize.cached():
                found.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
        for other in found[1:]:
            assert relative_difference(other, found[0]) < 1e-5

    def test_a_chain_inside_a_chain_and_functional_call(self) -> None:
        inner = reversible([(nn.Linear(2, 2), nn.Linear(2, 2))])
        chain = reversible([(inner, nn.Linear(4, 4)), (nn.Linear(4, 4), nn.Tanh())])
        before = list(chain.parameters())
        x = torch.randn(3, 8)
        other = {name: (p * 2).detach().requires_grad_() for name, p in chain.named_parameters()}
        found = []
        for strategy in STRATEGIES:
            chain.strategy = inner.strategy = strategy
            loss = torch.func.functional_call(chain, other, (x,)).square().sum() + chain(x).square().sum()
            found.append(torch.autograd.grad(loss, [*before, *other.values()]))
            assert [id(p) for p in chain.parameters()] == [id(p) for p in before]
        for gradient in found[1:]:
            assert relative_difference(gradient, found[0]) < 1e-5

    def test_fake_tensors_and_the_meta_device(self) -> None:
        for strategy in STRATEGIES:
            for mode, device in ((FakeTensorMode(), "cpu"), (nullcontext(), "meta")):
                with mode, torch.device(device):
                    chain = basic_chain(2, 8, strategy=strategy)
                    x = torch.empty(2, 8, 4, 4, requires_grad=True)
                    (grad,) = torch.autograd.grad(chain(x).sum(), x)
                    assert grad.shape == x.shape
