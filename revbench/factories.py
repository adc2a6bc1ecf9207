"""Somebody's factory: how it is imported, called, and what it may return."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from revbench.backprop import StrategyModule
from revbench.case import Factory
from revbench.errors import UserError
from revbench.models.networks import Loss, MakeBatch

SetStrategy = Callable[[nn.Module, str], None]
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def imported_factory(model: str, named: Factory) -> Any:
    """Returns what a case's model names.

    Args:
        model: the name as it is written.
        named: what it says.

    Raises:
        UserError: it can't be imported.
    """
    if named.module.endswith(".py"):
        raise UserError(
            f"model {model!r} names a file; name its module: {model.replace('.py:', ':', 1).replace('/', '.')}"
        )
    try:
        module = importlib.import_module(named.module)
    except (ImportError, ValueError) as error:
        where = ""
        if isinstance(error, ModuleNotFoundError) and error.name in (named.module, named.module.partition(".")[0]):
            where = f" in the current folder {Path.cwd()}, or installed"
        raise UserError(f"model {model!r} can't be imported: {error}{where}; give package.module:factory") from error
    try:
        return functools.reduce(getattr, named.attribute.split("."), module)
    except AttributeError as error:
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        near = difflib.get_close_matches(named.attribute, known, n=1)
        hint = f"; did you mean {named.module}:{near[0]}?" if near else "; give package.module:factory"
        raise UserError(f"model {model!r} can't be imported: {error}{hint}") from error


def made_by(model: str, named: Factory) -> tuple[nn.Module, MakeBatch | None, Loss, SetStrategy | None]:
    """Returns what a factory makes.

    A module, what draws its batches (None: images of normal random numbers), the loss, and what sets its own two ways to
    back-propagate (None if it has none).

    Args:
        model: the name as it is written.
        named: what it says.

    Raises:
        UserError: it can't be imported or called, or returns something else.
    """
    factory = imported_factory(model, named)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UserError(
            f"model {model!r} is a {type(factory).__name__}, not a function; name one that returns a new network each time"
        )
    try:
        inspect.signature(factory).bind(**named.arguments)
    except TypeError as error:
        parameters = inspect.signature(factory).parameters.values()
        asked = [one.name for one in parameters if one.default is one.empty and one.kind in _NAMED]
        arguments = ",".join(f"{name}={named.arguments.get(name, '…')}" for name in asked)
        mend = f"; name it with them: {named.module}:{named.attribute}({arguments})" if asked else ""
        raise UserError(f"model {model!r} can't be called so: {error}{mend}") from error
    made = factory(**named.arguments)
    parts = made if isinstance(made, tuple) else (made, None, None)
    if len(parts) not in (3, 4) or not isinstance(parts[0], nn.Module):
        raise UserError(
            f"model {model!r} returned {type(made).__name__}, not a module, (module, make_batch, loss) or (module,"
            " make_batch, loss, set_strategy)"
        )
    for name, part in zip(("make_batch", "loss", "set_strategy"), parts[1:], strict=False):
        if part is not None and not callable(part):
            raise UserError(f"model {model!r} returned a {type(part).__name__} as {name}; return a function, or None")
    network, make_batch, loss, own_setter = (*parts, None)[:4]
    if own_setter is not None and any(isinstance(module, StrategyModule) for module in network.modules()):
        raise UserError(f"model {model!r} has a revbench.reversible inside, whose strategy is set without set_strategy")
    return network, make_batch, loss or cross_entropy, own_setter
