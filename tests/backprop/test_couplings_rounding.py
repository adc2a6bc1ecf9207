"""What couplings take in memory, and what rounding does to them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop.coupling import Coupling
from revbench.backprop.couplings import Leapfrog, Midpoint, Momentum
from revbench.backprop.rules import Affine as AffineRule
from revbench.models.residual import ResidualFunction
from revbench.probes.live_tensors import LiveTensors
from tests.backprop.chains import relative_difference
from tests.backprop.formulas import (
    FORMULAS,
    PAIRS,
)


def peak_in_streams(name: str, blocks: int) -> float:
    """Peak of forward and backward above the steady state, in units of one stream."""
    stream = torch.randn(4, 16, 16, 16)
    returns = 32 if name.startswith("affine") else 16

    def function() -> nn.Module:
        return ResidualFunction(16, returns)

    functions: list[Any] = [(function(), function()) if name in PAIRS else function() for _ in range(blocks)]
    chain = reversible(functions, coupling=name)
    for parameter in chain.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = LiveTensors()
    live.track(chain, stream)
    steady = live.live_bytes
    with live:
        x = stream * 1.5
        y = chain((x, x * 0.5)) if name in PAIRS else chain(x)
        del x
        sum(half.mean() for half in (y if isinstance(y, tuple) else (y,))).backward()  # type: ignore[union-attr]
    return (live.peak_bytes - steady) / (stream.numel() * 4)


@pytest.mark.filterwarnings(
    "ignore:the output of a reversible chain", "ignore:reconstruction has lost"
)  # exp is not bounded
@pytest.mark.parametrize("name", FORMULAS)
def test_bytes_do_not_grow_with_depth_and_are_those_of_additive_halves(name: str) -> None:
    shallow, deep = peak_in_streams(name, 4), peak_in_streams(name, 12)
    assert deep == pytest.approx(shallow, rel=0.01)
    additive_peak = peak_in_streams("additive", 4)
    if name.startswith("affine"):  # its functions return two streams, and its own graph keeps s, its exponent and b
        assert deep < 2.2 * additive_peak
    else:
        kept = 1.0 if name.startswith(("midpoint", "leapfrog", "momentum")) else 0.0  # what entered
        assert deep < 1.02 * additive_peak + kept


def norm_tanh() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh())


def errors_of_gradients(coupling: Coupling, blocks: int) -> list[float]:
    """Of each function's gradient in float32, relative to stored activations in float64."""
    torch.manual_seed(0)
    chain = reversible([norm_tanh() for _ in range(blocks)], coupling=coupling)
    x = torch.randn(8, 16)

    def gradients(strategy: Any, dtype: torch.dtype) -> list[Tensor]:
        chain.strategy = strategy
        chain.to(dtype).zero_grad()
        chain(x.to(dtype)).square().sum().backward()
        return [torch.cat([p.grad.double().flatten() for p in block.parameters()]) for block in chain.blocks]  # type: ignore[union-attr]

    found, expected = gradients("reconstructed", torch.float32), gradients("stored", torch.float64)
    return [((a - b).norm() / b.norm()).item() for a, b in zip(found, expected, strict=True)]


def test_activations_that_are_lost_are_told_of() -> None:
    with pytest.warns(UserWarning, match="reconstruction has lost the activations that block .*off by about"):
        errors = errors_of_gradients(Momentum(0.5), 40)
    assert errors[0] > 0.1
    assert errors[-1] < 1e-5


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        (lambda keep: Midpoint(0.5, keep_first=keep), 1.5),
        (lambda keep: Leapfrog(0.5, keep_first=keep), 1.8),
        (lambda keep: Momentum(0.8, keep_first=keep), 5.0),
    ],
)
def test_the_first_functions_gradient_is_mended_by_keeping_what_it_was_given(
    kind: Callable[[bool], Coupling], times: float
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how much it grows
        forgotten, kept = errors_of_gradients(kind(False), 60), errors_of_gradients(kind(True), 60)
    assert forgotten[0] > times * kept[0]
    assert kept[1:] == forgotten[1:]  # they are further on, and nothing is changed for them


def test_what_enters_is_blamed_before_the_scale() -> None:
    chain = reversible([(nn.Linear(4, 8), nn.Linear(4, 8))], coupling="affine")
    with pytest.raises(FloatingPointError, match="is given values that are NaN"):
        chain(torch.full((2, 8), torch.nan))


@pytest.mark.parametrize(("coupling", "raw"), [("affine:exp", -4.0), ("affine:sigmoid", -8.0)])
def test_activations_that_a_small_scale_loses_are_told_of(coupling: str, raw: float) -> None:
    def half() -> nn.Module:
        made = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32))
        nn.init.constant_(made[1].bias[:16], raw)
        return made

    torch.manual_seed(0)
    chain = reversible([(half(), half()) for _ in range(3)], coupling=coupling)
    with pytest.warns(UserWarning, match="reconstruction has lost the activations"):
        chain(torch.randn(64, 32)).square().mean().backward()


def test_scales_are_those_of_forward_under_autocast() -> None:
    rule = AffineRule(1, "exp")
    value = torch.randn(4, 12).bfloat16()
    stream = torch.randn(4, 6)
    out = rule.forward(stream, [], value)
    assert out.dtype is torch.float32
    assert relative_difference([rule.inverse(out, [], value)], [stream]) < 1e-6
