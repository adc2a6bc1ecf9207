"""What counts as PyTorch's own is what PyTorch made, not what lives where it lives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop import ReversibleBlock
from revbench.backprop.plain import functions_are_pytorchs, is_plain, may_draw
from revbench.models.residual import ResidualFunction
from tests.backprop.oracle import assert_as_plain, once


def test_layers() -> None:
    for module in (nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Sequential(), nn.Dropout(), ResidualFunction(4, 4)):
        assert is_plain(module)
    assert is_plain(ReversibleBlock(nn.Identity(), nn.Identity()))

    class Own(nn.Linear):
        pass

    for module in (Own(2, 2), nn.MultiheadAttention(2, 1), nn.LazyLinear(2), nn.SyncBatchNorm(2), nn.LSTM(2, 2)):
        assert not is_plain(module)
    assert may_draw(nn.Dropout2d())
    assert may_draw(nn.RReLU())
    assert not may_draw(nn.Linear(2, 2))


def noisy(plain: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = plain(*args, **kwargs)
        return out * torch.rand_like(out)

    return call


@pytest.mark.parametrize(
    ("owner", "name"), [(nn.Linear, "forward"), (F, "linear"), (nn.Linear, "__call__"), (F, "tanh")]
)
def test_what_somebody_replaced_is_somebodys_own(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that draws random numbers, as noise injection for robustness does."""
    monkeypatch.setattr(owner, name, noisy(getattr(owner, name)) if owner is F else _method(getattr(owner, name)))
    assert not (is_plain(nn.Linear(2, 2)) and functions_are_pytorchs())

    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    assert_as_plain(lambda: [(half(), half()) for _ in range(3)], once)


def _method(plain: Any) -> Any:
    def forward(self: nn.Module, x: Tensor) -> Tensor:
        out: Tensor = plain(self, x)
        return out * torch.rand_like(out)

    return forward


def test_what_is_replaced_after_a_first_call_is_noticed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = reversible([(nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 6)) for _ in range(2)]).double()
    x = torch.randn(5, 12, dtype=torch.float64)
    chain(x).sum().backward()
    plain = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: plain(self, x) * torch.rand(6, dtype=x.dtype))
    torch.manual_seed(3)
    found = torch.autograd.grad(chain(x).square().sum(), list(chain.parameters()))
    torch.manual_seed(3)
    chain.strategy = "stored"
    expected = torch.autograd.grad(chain(x).square().sum(), list(chain.parameters()))
    torch.testing.assert_close(found, expected)


def test_a_layer_with_a_method_of_its_own_is_somebodys_own() -> None:
    layer = nn.Conv2d(2, 2, 3, padding=1)
    layer._conv_forward = nn.Conv2d._conv_forward.__get__(layer)  # type: ignore[method-assign]
    assert not is_plain(layer)


@pytest.mark.parametrize(
    "half",
    [
        nn.Identity,
        lambda: nn.Sequential(nn.Dropout(0.5), nn.Flatten(1)),
        lambda: nn.Sequential(nn.Identity(), nn.Unflatten(1, (6,)), nn.Dropout(0.0)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_layers_that_return_what_they_are_given_are_not_added_to_in_place(half: Any, training: bool) -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        chain.train(training)
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        before = x.detach().clone()
        y = call(x)
        y.square().sum().backward()
        assert torch.equal(x, before)
        return {"y": y.detach(), "gradient of x": x.grad}

    assert_as_plain(lambda: [(half(), half()) for _ in range(3)], use)
