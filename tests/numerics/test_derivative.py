"""Gradients against the derivative of their loss, from values of the loss alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from revbench.numerics.derivative import derivative_error
from revbench.numerics.passes import Step, own_functions


def network() -> nn.Module:
    layers = (nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4))
    return nn.Sequential(*layers).double()


@given(share=st.sampled_from([0.0, 1e-3, 0.1, 1.0]), seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_norm_of_an_error_is_told_to_a_factor(share: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = network()
    x, y = torch.randn(32, 6, dtype=torch.float64), torch.randint(4, (32,))
    step = Step(F.cross_entropy, seed)
    right = step.run(model, x, y, "it").gradient
    norm = torch.cat([g.flatten() for g in right.values()]).norm()
    noise = {name: torch.randn_like(g) for name, g in right.items()}
    scale = share * norm / torch.cat([n.flatten() for n in noise.values()]).norm()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = derivative_error(step, model, x, y, {name: g + scale * noise[name] for name, g in right.items()})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    expected = share / (1 + share**2) ** 0.5
    if share:
        assert expected / 4 < found < 3 * expected
    else:
        assert found < 1e-5  # a unit may stand within the move of its kink


def test_a_gradient_of_zero() -> None:
    model = nn.Linear(2, 1).double()
    step = Step(lambda out, _: 0.0 * out.sum(), 0)
    found = derivative_error(step, model, torch.ones(1, 2).double(), None, {"weight": torch.zeros(1, 2)})
    assert math.isnan(found)


def test_functions_of_ones_own_are_found_and_pytorchs_are_not() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            return grad

    from torch.utils.checkpoint import checkpoint

    layer = nn.Linear(2, 2)
    x = torch.ones(1, 2, requires_grad=True)
    assert own_functions(checkpoint(layer, x, use_reentrant=True).sum()) == ()
    assert own_functions(layer(Own.apply(layer(x))).sum()) == ("Own",)


@pytest.mark.parametrize("requires", [False, True])
def test_a_loss_without_a_graph(requires: bool) -> None:
    assert own_functions(torch.ones((), requires_grad=requires)) == ()
