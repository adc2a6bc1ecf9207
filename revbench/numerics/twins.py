"""Whether two strategies that somebody's own function sets are two ways to one gradient."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from revbench.errors import UserError
from revbench.numerics.passes import Loss, seed_generators
from revbench.numerics.reference import float64_by_default, wide
from revbench.observing.calling import call
from revbench.observing.operator_calls import EachOperator

_SAME = 1e-8  # relative, within which two losses of one function are in float64: sums in another order


def check_twins(
    loss: Loss, seed: int, stored: nn.Module, own: nn.Module, batch: tuple[Any, Any], strategy: str
) -> None:
    """Run both once, in float64.

    Args:
        loss: from outputs and targets to a scalar.
        seed: of the random numbers inside the model.
        stored, own: copies of one network, on which the strategies were set; they are made float64.
        batch: inputs and targets, in float64.
        strategy: what the other one is called.

    Raises:
        UserError: they compute different losses, so they are not one function; or they do the same operations in backward, so
            setting the strategy changed nothing.
    """
    (value, backward), (other, other_backward) = (_look(loss, seed, model.double(), batch) for model in (stored, own))
    if abs(value - other) > _SAME * max(abs(value), abs(other), 1e-3):
        raise UserError(
            f"the loss is {value:.6g} under 'stored' and {other:.6g} under {strategy!r}: set_strategy makes another function of"
            " the network, but strategies are ways to back-propagate one"
        )
    if backward == other_backward:
        raise UserError(
            f"under {strategy!r} backward does the very operations that it does under 'stored': set_strategy(model, strategy)"
            " changes nothing; let it switch the network's own way of back-propagation on and off"
        )


def _look(loss: Loss, seed: int, model: nn.Module, batch: tuple[Any, Any]) -> tuple[float, Counter[str]]:
    """Returns the loss, and how often backward calls each operator."""
    inputs, targets = batch
    calls: Counter[str] = Counter()

    def count(func: Any, *call: Any) -> None:
        calls[str(func)] += 1

    with float64_by_default():
        seed_generators(seed)
        with torch.enable_grad():
            value = wide(loss)(call(model, inputs), targets)
        with EachOperator(count):
            value.backward()
    return value.item(), calls
