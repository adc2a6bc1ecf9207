"""Couplings and rules that a user writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop.coupling import HalfStep
from revbench.backprop.couplings import Hamiltonian
from revbench.backprop.rules import Linear, Rule
from tests.backprop.chains import relative_difference
from tests.backprop.formulas import (
    Function,
    waves,
)


class Rotation(Rule):
    """A rule of somebody's own: the stream and the function's value as the legs of a right angle; nothing says how to
    differentiate it."""

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * torch.cosh(value) + torch.tanh(a[-1])

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - torch.tanh(a[-1])) / torch.cosh(value)


class OfTwo(Hamiltonian):
    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        return [step._replace(rule=Rotation()) for step in super().half_steps(functions)]


def test_a_coupling_of_ones_own_needs_no_more_than_a_map_and_its_inverse() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(0)
        pairs = [(nn.Sequential(Function(), nn.Tanh()), nn.Sequential(Function(), nn.Tanh())) for _ in range(3)]
        chain = reversible(pairs, coupling=OfTwo(), strategy=strategy).double()
        x = torch.randn(5, 12, dtype=torch.float64).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


class Doubling(Linear):
    """A rule that is made of the linear one and does more."""

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * 2 + value

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - value) / 2


class Weighted(Rule):
    """A rule that holds a weight, whose gradient nobody would ask for."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, b: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return b * self.weight.exp() + value

    def inverse(self, out: Tensor, a: Sequence[Tensor], value: Tensor, *, into: Tensor | None = None) -> Tensor:
        return (out - value) / self.weight.exp()


def chain_with(rule: Rule, strategy: Any) -> Any:
    class Coupled(Hamiltonian):
        def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
            return [step._replace(rule=rule) for step in super().half_steps(functions)]

    torch.manual_seed(0)
    pairs = [(nn.Linear(6, 6), nn.Linear(6, 6)) for _ in range(3)]
    return reversible(pairs, coupling=Coupled(), strategy=strategy).double()


def test_a_rule_that_is_made_of_the_linear_one_has_its_own_gradient() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain, x = chain_with(Doubling(), strategy), waves(5, 12).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@pytest.mark.parametrize("strategy", ["reconstructed", "checkpointed", "recursive"])
def test_a_weight_in_a_rule_is_refused(strategy: str) -> None:
    y = chain_with(Weighted(), strategy)(waves(5, 12))
    with pytest.raises(RuntimeError, match="gradient"):
        y.square().sum().backward()
