"""Copies of a network that may be run at will, and the float64 reference among them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revbench.errors import UserError, first_line
from revbench.numerics.derivative import derivative_error, gradient_condition
from revbench.numerics.passes import Loss, Pass, Step
from revbench.numerics.switches import Switches
from revbench.observing.refusals import wants_integers


def check_measurable(model: nn.Module) -> None:
    """Raise a `UserError` for a network whose gradient is not measured."""
    parameters = list(model.parameters())
    if not any(p.requires_grad for p in parameters):
        raise UserError(f"{type(model).__name__} has no parameter that needs gradient: there is nothing to measure")
    if any(p.is_complex() for p in parameters):
        raise UserError(f"{type(model).__name__} has complex parameters, whose gradients are not measured")


def copied(model: nn.Module) -> nn.Module:
    """Returns a deep copy.

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
    """Tells whether `torch.compile` made this module."""
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
    """Returns the pass in float64: also the loss, if it is a module, and what the network makes in the default dtype."""
    try:
        with float64_by_default():
            return Step(wide(loss), seed).run(exact, batch[0], batch[1], "stored in float64", switches)
    except RuntimeError as error:
        if ("dtype" not in str(error) and "scalar type" not in str(error)) or wants_integers(error):
            raise
        raise UserError(
            f"{type(exact).__name__} can't run in float64, which the reference does: {first_line(error)};"
            " make tensors in the input's dtype"
        ) from error


def reference_derivative_error(
    loss: Loss, seed: int, exact: nn.Module, batch: tuple[Any, Any], gradient: Mapping[str, Tensor]
) -> float:
    """Returns how far the reference's gradient is from the derivative of its loss (`revbench.numerics.derivative`)."""
    with float64_by_default():
        return derivative_error(Step(wide(loss), seed), exact, batch[0], batch[1], gradient)


def reference_condition(
    loss: Loss,
    seed: int,
    exact: nn.Module,
    batch: tuple[Any, Any],
    gradient: Mapping[str, Tensor],
    switches: Switches | None,
) -> float | None:
    """Returns the condition number of the reference's gradient (`revbench.numerics.derivative`)."""
    with float64_by_default():
        return gradient_condition(Step(wide(loss), seed), exact, batch[0], batch[1], gradient, switches)


def wide(loss: Loss) -> Loss:
    """Returns the loss in float64, if it is a module."""
    return copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss


@contextmanager
def float64_by_default() -> Iterator[None]:
    """Inside, what a network makes without saying in which dtype is float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
