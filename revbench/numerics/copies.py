"""Copies of a network that may be run at will, and the float64 reference among them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revbench.errors import UserError, first_line
from revbench.numerics.derivative import derivative_error
from revbench.numerics.passes import Loss, Pass, Step
from revbench.numerics.switches import Switches

_MOVE = 1e-8  # of the weights' norm, by which a condition number is measured


def check_measurable(model: nn.Module) -> None:
    """Raise a `UserError` for a network whose gradient is not measured."""
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise UserError(f"{type(model).__name__} has no parameter that needs gradient: there is nothing to measure")
    if any(p.is_complex() for p in parameters):
        raise UserError(f"{type(model).__name__} has complex parameters, whose gradients are not measured")


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        UserError: it can't be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise UserError(
            f"{type(model).__name__} can't be copied, which measuring drift needs: {first_line(error)};"
            " keep no activation in a module"
        ) from error


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` made this module."""
    return module._compiled_call_impl is not None or "_orig_mod" in module._modules


@contextmanager
def own_gradients_aside(model: nn.Module) -> Iterator[None]:
    """Inside, the model has no gradients; afterwards it has those that it had.

    Raises:
        UserError: a gradient appeared: the loss uses the model itself, of which only copies are measured.
    """
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
        touched = any(parameter.grad is not None for parameter, _ in kept)
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient
    if touched:
        raise UserError(
            "the loss uses the model's own parameters, but copies are measured; give a loss of outputs and targets"
        )


def run_reference(loss: Loss, seed: int, exact: nn.Module, batch: tuple[Any, Any], switches: Switches | None) -> Pass:
    """The pass in float64: also the loss, if it is a module, and what the network makes in the default dtype."""
    try:
        with _float64_by_default():
            return Step(_wide(loss), seed).run(exact, batch[0], batch[1], "stored in float64", switches)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        raise UserError(
            f"{type(exact).__name__} can't run in float64, which the reference does: {first_line(error)};"
            " make tensors in the input's dtype"
        ) from error


def reference_derivative_error(
    loss: Loss, seed: int, exact: nn.Module, batch: tuple[Any, Any], gradient: Mapping[str, Tensor]
) -> float:
    """How far the reference's gradient is from the derivative of its loss (`revbench.numerics.derivative`)."""
    with _float64_by_default():
        return derivative_error(Step(_wide(loss), seed), exact, batch[0], batch[1], gradient)


def reference_condition(
    loss: Loss, seed: int, exact: nn.Module, batch: tuple[Any, Any], reference: Pass, switches: Switches | None
) -> float | None:
    """The condition number of the reference's gradient with respect to the weights, in a random direction.

    ``(|g(w + d) - g(w)| / |g(w)|) / (|d| / |w|)`` with ``|d| = 1e-8 |w|`` (Higham 2002, section 1.6: how much an output changes
    by a change of the input).

    Args:
        loss, seed, exact, batch: of the reference; the weights end as they began.
        reference: its pass.
        switches: to be frozen to, so that the function is smooth; None if they can't be followed.
    """
    weights = {name: p for name, p in exact.named_parameters() if name in reference.gradient}
    before = {name: p.detach().clone() for name, p in weights.items()}
    length = _norm(before)
    gradient = _norm(reference.gradient)
    if not (length > 0 and gradient > 0):
        return None
    generator = torch.Generator().manual_seed(0)
    moves = {n: torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device) for n, w in before.items()}
    scale = _MOVE * length / _norm(moves)
    try:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.add_(moves[name], alpha=scale)
        with _float64_by_default():
            moved = Step(_wide(loss), seed).run(exact, batch[0], batch[1], "stored at other weights", switches)
    except FloatingPointError:
        return None
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])
    change = _norm({name: moved.gradient[name] - g for name, g in reference.gradient.items()})
    return change / gradient / _MOVE


def _norm(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(x.double().square().sum().item() for x in tensors.values()))


def _wide(loss: Loss) -> Loss:
    return copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss


@contextmanager
def _float64_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
