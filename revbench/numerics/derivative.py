"""What is told by moving the weights a little: whether a gradient is the derivative of its loss, and its condition number.

A network that back-propagates by functions of its own can't be compared with plain autograd of the same network. But
its loss can be computed at weights that are moved a little. Along random v of independent standard normal numbers
``(dL/dv - g·v)²`` is on average ``|∇L - g|²`` (as in Hutchinson 1990), so a few directions estimate how far g is from the
derivative of the loss. dL/dv is a central difference in float64, good to about a millionth of ``|∇L|``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revbench.numerics.passes import Step
from revbench.numerics.switches import Switches

DIRECTIONS = 6
_MOVE = 1e-6  # of the weights' norm, for differences of the loss
_SMALL_MOVE = 1e-8  # for differences of the gradient


def derivative_error(step: Step, model: nn.Module, inputs: Any, targets: Any, gradient: Mapping[str, Tensor]) -> float:
    """Returns ``|∇L - g| / |g|``, estimated along `DIRECTIONS` directions.

    Args:
        step: how the loss is computed.
        model: in float64; its weights end as they began.
        inputs, targets: the batch, in float64.
        gradient: g, by the names of the parameters.

    Returns:
        The estimate, within a factor of two in 19 of 20; NaN of a gradient of zero. Below about 1e-6 it is what
        differences can tell.
    """
    norm = norm_of(gradient)
    return distance_to_derivative(step, model, inputs, targets, gradient) / norm if norm > 0 else math.nan


def distance_to_derivative(
    step: Step, model: nn.Module, inputs: Any, targets: Any, gradient: Mapping[str, Tensor], *, move: float = _MOVE
) -> float:
    """Returns ``|∇L - g|``, estimated likewise.

    Args:
        step, model, inputs, targets: as of `derivative_error`.
        gradient: g, by the names of the parameters that are asked for.
        move: how far the weights are moved, of their norm.
    """
    weights = _weights(model, gradient)
    count = sum(w.numel() for w in weights.values())
    distance = move * max(norm_of(weights), 1e-3) / math.sqrt(count)
    generator = torch.Generator().manual_seed(0)
    squares = []
    for _ in range(DIRECTIONS):
        v = _direction(weights, generator)
        values = []
        for signed in (distance, -distance):
            with _moved(weights, v, signed):
                values.append(step.value(model, inputs, targets))
        along = sum((gradient[name].double() * direction).sum().item() for name, direction in v.items())
        squares.append(((values[0] - values[1]) / (2 * distance) - along) ** 2)
    return math.sqrt(sum(squares) / len(squares))


def gradient_condition(
    step: Step, model: nn.Module, inputs: Any, targets: Any, gradient: Mapping[str, Tensor], switches: Switches | None
) -> float | None:
    """Returns the condition number of a gradient with respect to the weights, in a random direction.

    ``(|g(w + d) - g(w)| / |g(w)|) / (|d| / |w|)`` with ``|d| = 1e-8 |w|`` (Higham 2002, section 1.6: how much an output changes
    by a change of the input).

    Args:
        step, model, inputs, targets, gradient: as of `derivative_error`.
        switches: frozen to those of the gradient's own pass, so that the function is smooth; None if they can't be followed.

    Returns:
        None if weights or gradient are zero, or the gradient beside is not finite.
    """
    weights = _weights(model, gradient)
    length, norm = norm_of(weights), norm_of(gradient)
    if not (length > 0 and norm > 0):
        return None
    direction = _direction(weights, torch.Generator().manual_seed(0))
    try:
        with _moved(weights, direction, _SMALL_MOVE * length / norm_of(direction)):
            beside = step.run(model, inputs, targets, "stored at other weights", switches).gradient
    except FloatingPointError:
        return None
    return norm_of({name: beside[name] - g for name, g in gradient.items()}) / norm / _SMALL_MOVE


def norm_of(tensors: Mapping[str, Tensor]) -> float:
    """Returns the Euclidean norm of all of them together, in float64."""
    return math.sqrt(sum(x.detach().double().square().sum().item() for x in tensors.values()))


def _weights(model: nn.Module, gradient: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if name in gradient}


def _direction(weights: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    return {n: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device) for n, w in weights.items()}


@contextmanager
def _moved(weights: Mapping[str, Tensor], direction: Mapping[str, Tensor], distance: float) -> Iterator[None]:
    """Inside, the weights lie so far along a direction; afterwards they have their bits again."""
    before = {name: w.detach().clone() for name, w in weights.items()}
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(direction[name], alpha=distance)
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
