"""Dropouts that are called as functions are switched off and counted, whatever their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.checkup.dropouts import called_dropouts_off, dropping
from revbench.numerics.passes import dropout_in_float32

X = torch.linspace(0.5, 1.5, 2 * 3 * 4 * 4).view(2, 3, 4, 4)
NOTHING = nn.Module()
ATTENTION = nn.MultiheadAttention(4, 2, dropout=0.5)

# Of each: what drops, and the same where it doesn't.
CALLS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "F.dropout": (lambda: F.dropout(X), lambda: X),
    "F.dropout, p by place": (lambda: F.dropout(X, 0.4), lambda: X),
    "F.dropout, by name": (lambda: F.dropout(X, p=0.4, training=True), lambda: X),
    "F.dropout1d": (lambda: F.dropout1d(X[0]), lambda: X[0]),
    "F.dropout2d": (lambda: F.dropout2d(X), lambda: X),
    "F.dropout3d": (lambda: F.dropout3d(X[None]), lambda: X[None]),
    "F.alpha_dropout": (lambda: F.alpha_dropout(X, training=True), lambda: X),
    "F.feature_alpha_dropout": (lambda: F.feature_alpha_dropout(X, 0.5, True), lambda: X),
    "torch.dropout": (lambda: torch.dropout(X, 0.5, True), lambda: X),
    "torch.dropout_": (lambda: torch.dropout_(X.clone(), 0.5, train=True), lambda: X),
    "torch.native_dropout": (lambda: torch.native_dropout(X, 0.5, True)[0], lambda: X),
    "nn.Dropout": (lambda: nn.Dropout(0.5)(X), lambda: X),
    "attention": (
        lambda: F.scaled_dot_product_attention(X, X, X, dropout_p=0.5),
        lambda: F.scaled_dot_product_attention(X, X, X),
    ),
    "attention, by place": (
        lambda: F.scaled_dot_product_attention(X, X, X, None, 0.5),
        lambda: F.scaled_dot_product_attention(X, X, X),
    ),
    "a module of attention": (
        lambda: ATTENTION.train()(X[0], X[0], X[0])[0],
        lambda: ATTENTION.eval()(X[0], X[0], X[0])[0],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_drops_is_counted_and_can_be_switched_off(name: str) -> None:
    drops, plain = CALLS[name]
    torch.manual_seed(0)
    assert not torch.allclose(drops(), plain())
    assert dropping(NOTHING, drops) == [""]
    with called_dropouts_off():
        assert torch.allclose(drops(), plain(), rtol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda: F.dropout(X, 0.0),
        lambda: F.dropout(X, training=False),
        lambda: F.alpha_dropout(X),
        lambda: torch.dropout(X, 0.5, False),
        lambda: F.scaled_dot_product_attention(X, X, X),
        lambda: nn.Dropout(0.5).eval()(X),
    ],
)
def test_what_drops_nothing_is_not_counted(call: Callable[[], Tensor]) -> None:
    assert dropping(NOTHING, call) == []


def test_recurrent_layers_that_drop_are_counted() -> None:
    with_dropout = nn.LSTM(4, 4, num_layers=2, dropout=0.5)
    assert dropping(with_dropout, lambda: with_dropout(X[0])) == [""]
    assert with_dropout.dropout == 0
    without = nn.LSTM(4, 4, num_layers=2)
    assert dropping(without, lambda: without(X[0])) == []


def test_modules_that_drop_are_named_once_and_functions_by_their_module() -> None:
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.inner(F.dropout(x, 0.2)), 0.0)

    model = nn.Sequential(Calls(), nn.Dropout(0.0))
    assert dropping(model, lambda: model(X)) == ["0.inner.0", "0"]


def test_off_is_off_where_masks_are_drawn_in_another_way() -> None:
    module = nn.Sequential(nn.Dropout(0.5))
    with called_dropouts_off(), dropout_in_float32():
        assert torch.equal(module(X), X)


def test_off_is_off_in_what_backward_calls() -> None:
    module = nn.Dropout(0.5)

    class Again(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            dropped: Tensor = module(g)
            return dropped

    x = X.clone().requires_grad_()
    with called_dropouts_off():
        Again.apply(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(X))
