"""Chains, networks and gradients that the tests of `backprop` share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revbench.backprop import ReversibleChain, reversible
from revbench.models.residual import ResidualFunction


def basic_chain(
    blocks: int, channels: int = 64, *, bottleneck: bool = False, strategy: str = "reconstructed"
) -> ReversibleChain:
    half = channels // 2

    def function() -> ResidualFunction:
        return ResidualFunction(half, half, bottleneck=bottleneck)

    return reversible([(function(), function()) for _ in range(blocks)], strategy=strategy)  # type: ignore[arg-type]


class PeersNet(nn.Module):
    """The chain that the existing libraries were measured with: conv stem, a pair in and out, mean-pooled head."""

    def __init__(self, blocks: int, channels: int = 64, *, bottleneck: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.chain = basic_chain(blocks, channels, bottleneck=bottleneck)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        halves = self.chain(tuple(self.stem(x).chunk(2, 1)))
        pooled: Tensor = self.head(torch.cat([half.mean((2, 3)) for half in halves], 1))
        return pooled


def relative_difference(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    """All gradients as one vector: the norm of the difference over the norm of what is expected."""
    assert [g is None for g in found] == [g is None for g in expected]
    a = torch.cat([g.double().flatten() for g in found if g is not None])
    b = torch.cat([g.double().flatten() for g in expected if g is not None])
    return ((a - b).norm() / b.norm()).item()


def gradients(model: nn.Module, x: Tensor, weight: Tensor) -> list[Tensor]:
    """Of ``(model(x) * weight).sum()``: the input's, then every parameter's."""
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad((model(x) * weight).sum(), [x, *model.parameters()]))


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
