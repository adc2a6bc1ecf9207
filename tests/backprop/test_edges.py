"""A graph outlives the value that it leads to, whoever wrote the function that made the value."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from revbench import reversible
from revbench.backprop import edges
from revbench.backprop.edges import edge_to
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear


class Doubled(torch.autograd.Function):
    """Written in Python, and the last thing that is called."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class EndsInPython(Linear):
    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = Doubled.apply(torch.tanh(self.linear(x)))
        return found


@pytest.fixture(params=[True, False], ids=["as it is", "before 2.7"])
def _owns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(edges, "_EDGES_OWN", False)


@pytest.mark.usefixtures("_owns")
def test_the_value_is_let_go_of_and_the_graph_is_not() -> None:
    x = torch.randn(1000, requires_grad=True)
    value = Doubled.apply(x.sin())
    edge, there = edge_to(value), weakref.ref(value)
    del value
    gc.collect()
    assert there() is None
    (found,) = torch.autograd.grad([edge], [x], torch.ones(1000))
    assert torch.equal(found, 2 * x.cos())


@pytest.mark.usefixtures("_owns")
def test_a_leaf() -> None:
    x = torch.randn(3, requires_grad=True)
    (found,) = torch.autograd.grad([edge_to(x)], [x], torch.full((3,), 5.0))
    assert torch.equal(found, torch.full((3,), 5.0))


@pytest.mark.usefixtures("_owns")
@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_functions_that_end_in_python(strategy: Any) -> None:
    torch.manual_seed(0)
    chain = reversible([(EndsInPython(), EndsInPython()) for _ in range(5)]).double()
    x = torch.randn(4, 12, dtype=torch.float64)
    found = []
    for chain.strategy in ("stored", strategy):
        found.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
    for expected, got in zip(*found, strict=True):
        assert (expected - got).norm() <= 1e-9 * expected.norm()
