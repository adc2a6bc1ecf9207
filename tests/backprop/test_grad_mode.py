"""F and G see the grad mode of `stored`, and no gradient is lost by what leaves them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear, assert_as_plain, once, three

RECOMPUTING = STRATEGIES[1:]


class LooksAtGradMode(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * (2.0 if torch.is_grad_enabled() else 1.0)


class Energy(nn.Module):
    """F is the gradient of an energy, taken at a copy if its input needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.energy(z).sum(), z, create_graph=True)
        return gradient


class HooksInside(Linear):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.linear(x))
        if h.requires_grad:
            h.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
        return h


@pytest.mark.parametrize("kind", [LooksAtGradMode, Energy, HooksInside])
def test_functions_see_the_grad_mode_of_stored(kind: Callable[[], nn.Module]) -> None:
    assert_as_plain(three(kind), once)


def test_only_the_last_function_has_parameters_that_need_gradient() -> None:
    """Then the first half steps get no node, and no backward pass."""

    def use(call: Any, chain: Any) -> dict[str, Any]:
        chain.requires_grad_(False)
        chain.blocks[2].g.requires_grad_()
        y = call(torch.randn(5, 12, dtype=torch.float64))
        y.square().sum().backward()
        return {"y": y.detach()}

    assert_as_plain(three(LooksAtGradMode), use)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("stack", [False, True])
def test_pytorchs_fast_path_in_eval(padding: bool, stack: bool) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(6, 2, 16, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True) if stack else layer
            self.register_buffer("padding", torch.tensor([[False] * 4, [False, False, True, True]]))

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x, **({"src_key_padding_mask": self.padding} if padding else {}))

    def use(call: Any, chain: Any) -> dict[str, Any]:
        chain.eval()
        x = torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        y.square().sum().backward()
        return {"y": y.detach(), "gradient of x": x.grad}

    assert_as_plain(lambda: [(Encoder(), Encoder()) for _ in range(2)], use, split_dim=2)


# Gradients that would be lost


class Aux(Linear):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.linear(x))
        self.aux = h.square().mean()
        return h


def test_a_tensor_that_leaves_by_an_attribute_and_is_differentiated() -> None:
    for strategy in RECOMPUTING:
        chain = reversible(three(Aux)(), strategy=strategy)
        y = chain(torch.randn(5, 12, requires_grad=True))
        assert chain.blocks[1].f.aux.item() > 0
        with pytest.raises(RuntimeError, match=r"a tensor left (block|unit) \d.* beside its result"):
            (y.sum() + chain.blocks[1].f.aux).backward()
