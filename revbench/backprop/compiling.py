"""`torch.compile` for each residual function and each unit: the pieces that a strategy calls.

A strategy is Python that decides what to keep; what it calls is where the time goes. So each F and G, and each unit
that is no additive coupling, is compiled by itself and whole: a break in its graph is an error, not a
slow path. The strategies work on compiled pieces as on any others. A caller who compiles a whole model around a
chain gets what is before and after it compiled; the strategy itself is stepped over.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

_Called = TypeVar("_Called", bound=Callable[..., Any])


def outside_graphs(function: _Called) -> _Called:
    """Returns a function that `torch.compile` steps over, with all that it calls, instead of tracing into it.

    As `torch.compiler.disable`, which would import the compiler at once: a second and a half that most never need.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def compile_pieces(pieces: Iterable[nn.Module], *, backend: str | Callable[..., Any] = "inductor") -> int:
    """Compile modules in place; parameters, hooks and the names in the state dict stay as they are.

    Compilation itself happens at the first call, once for each gradient mode: forward without gradient, recomputation with.
    A piece is compiled for the shape that it is first called with; when a dimension changes, once more, for any size of it.

    Args:
        pieces: modules; one that is compiled already, or occurs twice, is compiled once.
        backend: of `torch.compile`.

    Returns:
        How many were compiled.
    """
    count = 0
    for piece in pieces:
        if piece._compiled_call_impl is None:
            run = _of_its_own(piece)
            piece._compiled_call_impl = torch.compile(run, backend=backend, fullgraph=True)
            count += 1
    return count


def _of_its_own(piece: nn.Module) -> Callable[..., Any]:
    """Returns a function that calls the module, with a code object of its own.

    PyTorch limits how often one code object is compiled (8 times), and `nn.Module.compile` takes the same one for
    every module: the ninth F of a network would run eagerly, or fail.
    """
    call: Callable[..., Any] = piece._call_impl

    def run(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    return types.FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)
