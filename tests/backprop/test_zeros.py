"""Exact zeros of what enters a chain are exact zeros again in backward, where activations have their kink."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench.backprop.entering import Zeros
from tests.backprop.oracle import Linear, Pairs, assert_as_plain


def normalised() -> Pairs:
    def half() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))

    return [(half(), half()) for _ in range(3)]


class Kinked(Linear):
    """Zero, one, or undecided at zero, depending on the sign of what rounding leaves there."""

    def forward(self, x: Tensor) -> Tensor:
        mask = (x != 0).double()
        return self.linear(torch.relu(x) + x.abs() * mask) * (1.5 + x.sign() * mask)


def kinked() -> Pairs:
    return [(Kinked(), Kinked()) for _ in range(3)]


def an_empty_half(x: Tensor) -> Tensor:
    return torch.cat((x[:, :6], torch.zeros_like(x[:, 6:])), 1)


def padded_channels(x: Tensor) -> Tensor:
    return x * (torch.arange(12) % 3 != 0)


def a_black_border(x: Tensor) -> Tensor:
    return x * (torch.arange(len(x)) > 2)[:, None]


def after_a_relu(x: Tensor) -> Tensor:
    return x.relu()


@pytest.mark.parametrize("make", [normalised, kinked])
@pytest.mark.parametrize("shape", [an_empty_half, padded_channels, a_black_border, after_a_relu])
def test_zeros_that_enter_a_chain(shape: Any, make: Any) -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = shape(torch.randn(9, 12, dtype=torch.float64)).requires_grad_()
        call(x).square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(make, use, tolerance=1e-9)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -2.5, float("nan")]), min_size=1, max_size=40), st.booleans())
def test_every_zero_is_put_back_and_nothing_else(numbers: list[float], transposed: bool) -> None:
    half = torch.tensor([numbers, numbers[::-1]])
    half = half.t() if transposed else half
    found = torch.where(half == 0, 1e-17, half)
    Zeros(half).put_back(found)
    assert torch.equal(found == 0, half == 0)
    assert torch.equal(found.nan_to_num(7.0), half.nan_to_num(7.0))


def test_complex_zeros() -> None:
    half = torch.tensor([0j, 1j, 0j])
    found = half + 1e-9
    Zeros(half).put_back(found)
    assert torch.equal(found == 0, half == 0)
