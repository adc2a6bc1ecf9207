"""One chain in the many ways that PyTorch allows."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.chains import Bounded, basic_chain, relative_difference


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
