"""Whether a gradient is the derivative of its loss, told from values of the loss alone: what needs no stored twin.

A network that back-propagates by functions of its own can't be compared with plain autograd of the same network. But
its loss can be computed at weights that are moved a little. Along random v of independent standard normal numbers
``(dL/dv - g·v)²`` is on average ``|∇L - g|²`` (as in Hutchinson 1990), so a few directions estimate how far g is from the
derivative of the loss. dL/dv is a central difference in float64, good to about a millionth of ``|∇L|``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from revbench.numerics.passes import Step

DIRECTIONS = 6
_MOVE = 1e-6  # of the weights' norm


def derivative_error(step: Step, model: nn.Module, inputs: Any, targets: Any, gradient: Mapping[str, Tensor]) -> float:
    """``|∇L - g| / |g|``, estimated along `DIRECTIONS` directions.

    Args:
        step: how the loss is computed.
        model: in float64; its weights end as they began.
        inputs, targets: the batch, in float64.
        gradient: g, by the names of the parameters.

    Returns:
        The estimate, within a factor of two in 19 of 20; NaN of a gradient of zero. Below about 1e-6 it is what
        differences can tell.
    """
    weights = {name: p for name, p in model.named_parameters() if name in gradient}
    before = {name: p.detach().clone() for name, p in weights.items()}
    length = math.sqrt(sum(w.square().sum().item() for w in before.values()))
    count = sum(w.numel() for w in before.values())
    move = _MOVE * max(length, 1e-3) / math.sqrt(count)
    generator = torch.Generator().manual_seed(0)
    squares = []
    try:
        for _ in range(DIRECTIONS):
            v = {n: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device) for n, w in before.items()}
            ahead, behind = (_value_at(step, model, inputs, targets, weights, before, v, h) for h in (move, -move))
            along = sum((gradient[name].double() * direction).sum().item() for name, direction in v.items())
            squares.append(((ahead - behind) / (2 * move) - along) ** 2)
    finally:
        _set(weights, before)
    norm = math.sqrt(sum(g.double().square().sum().item() for g in gradient.values()))
    return math.sqrt(sum(squares) / len(squares)) / norm if norm > 0 else math.nan


def _value_at(
    step: Step, model: nn.Module, inputs: Any, targets: Any, weights: Mapping[str, nn.Parameter], before: Mapping[str, Tensor],
    direction: Mapping[str, Tensor], distance: float,
) -> float:  # fmt: skip
    _set(weights, {name: w + distance * direction[name] for name, w in before.items()})
    return step.value(model, inputs, targets)


@torch.no_grad()
def _set(weights: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])
