"""How a network is called with what a batch holds: with one thing, with several in order, or with several by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


def call(model: nn.Module, inputs: Any) -> Any:
    """Returns what a network makes of a batch's inputs.

    Args:
        model: whose ``forward`` says how it is called.
        inputs: a mapping goes in by name, ``model(**inputs)``, if ``forward`` has all these names (as networks of `transformers`
            do) and takes nothing else without a default; a plain tuple goes in as ``model(*inputs)`` if ``forward`` takes exactly
            so many arguments without a default, of at least two. Anything else, also the pair of halves of a reversible chain,
            goes in as it is.
    """
    whole = unwrapped(model)
    if isinstance(inputs, Mapping) and goes_in_by_name(whole, inputs):
        return model(**inputs)
    if type(inputs) is tuple and len(inputs) > 1 and _needs(whole) == len(inputs):
        return model(*inputs)
    return model(inputs)


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the network itself of one that several processes train."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def goes_in_by_name(model: nn.Module, inputs: Mapping[Any, Any]) -> bool:
    """Tells whether `call` gives a mapping as ``model(**inputs)``."""
    parameters = _parameters(model)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    others = [p for p in parameters if p.default is p.empty and p.name not in inputs and p.kind not in _ANY_NUMBER]
    return bool(inputs) and set(inputs) <= named and not others


def _needs(model: nn.Module) -> int:
    """Returns how many arguments there must be; 0 if none of them can be told."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in _parameters(model))


_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):  # of a function that is none of Python
        return []
