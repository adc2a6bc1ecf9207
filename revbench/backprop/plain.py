"""Which modules are PyTorch's own, unchanged: what is known of them need not be found out at each call.

A *plain* function is made of PyTorch's layers in `nn.Sequential` and nothing else. Its layers are known not to look at
grad mode, to write no parameter, to keep no state but batch norm's and to take nothing from outside. What is not known by
the identity of its class and of its `forward` is not plain: a subclass, a `forward` that somebody replaced, anything at
all while a function of `torch.nn.functional` is replaced.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import (
    activation,
    batchnorm,
    channelshuffle,
    conv,
    distance,
    dropout,
    flatten,
    instancenorm,
    linear,
    normalization,
    padding,
    pixelshuffle,
    pooling,
)

_FILES = (
    activation, batchnorm, channelshuffle, conv, distance, dropout, flatten, instancenorm, linear, normalization, padding,
    pixelshuffle, pooling,
)  # fmt: skip
# Attention looks at grad mode, and keeps nothing of what was said above.
_NOT_PLAIN = (nn.MultiheadAttention, nn.modules.lazy.LazyModuleMixin, nn.modules.batchnorm.SyncBatchNorm)
_DRAW = (nn.RReLU, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.modules.dropout._DropoutNd)


_TORCH = Path(torch.__file__).parent


def _is_pytorchs(function: Any) -> bool:
    """Tells whether a function was written in PyTorch's package, or is none of Python."""
    if not isinstance(function, FunctionType):
        return True
    return Path(inspect.unwrap(function).__code__.co_filename).is_relative_to(_TORCH)


_FORWARDS: dict[type[nn.Module], Any] = {
    kind: kind.forward
    for file in _FILES
    for kind in vars(file).values()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind.__module__ == file.__name__
    if not issubclass(kind, _NOT_PLAIN) and _is_pytorchs(kind.forward)
}
_SEQUENCE = (nn.Sequential.forward, nn.Sequential.__iter__)
_CALL = nn.Module.__call__
_FUNCTIONS = {
    name: function
    for name, function in vars(F).items()
    if callable(function) and not name.startswith("__") and not isinstance(function, type)
}
_WHOLE = all(map(_is_pytorchs, _FUNCTIONS.values()))


def functions_are_pytorchs() -> bool:
    """Tells whether no function of `torch.nn.functional` and no call of modules was replaced since this was imported."""
    return _WHOLE and nn.Module.__call__ is _CALL and vars(F).items() >= _FUNCTIONS.items()


def _is_sequence(kind: type[nn.Module]) -> bool:
    return (kind.forward, kind.__iter__) == _SEQUENCE  # type: ignore[attr-defined]


_CONTAINERS: dict[type[nn.Module], tuple[Any, Callable[[Any], bool]]] = {}  # `forward`, and of which modules it is so
_Container = TypeVar("_Container", bound=type[nn.Module])


def plain_container(kind: _Container, where: Callable[[Any], bool] = lambda _: True) -> _Container:
    """Declare of a class of ours that its `forward` only calls its children and adds up, pools or pads tensors.

    Args:
        kind: the class.
        where: of which of its modules that is so.
    """
    _CONTAINERS[kind] = kind.forward, where
    return kind


def is_plain(module: nn.Module) -> bool:
    """Tells whether one module is a layer of PyTorch's, or `nn.Sequential`, as PyTorch made it."""
    kind: Any = type(module)
    if kind in _CONTAINERS:
        forward, where = _CONTAINERS[kind]
        known = kind.forward is forward and where(module)
    else:
        known = kind.forward is _FORWARDS.get(kind) or (isinstance(module, nn.Sequential) and _is_sequence(kind))
    return known and kind.__call__ is _CALL and _replaceable(kind).isdisjoint(module.__dict__)


@functools.lru_cache(1024)
def _replaceable(kind: type) -> frozenset[str]:
    """Returns what an instance may not hold itself: a method of its own, or a weight from outside (a hypernetwork's, say)."""
    methods = {name for base in kind.__mro__ for name, value in vars(base).items() if isinstance(value, FunctionType)}
    return frozenset(methods | {"weight", "bias"})


def may_draw(module: nn.Module) -> bool:
    """Tells whether a plain module may draw random numbers."""
    return isinstance(module, _DRAW)
