"""Dropouts of a network: its modules', and those that it calls as functions, off or counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from revbench.observing.module_calls import around_module_calls


def switch_dropouts_off(model: nn.Module) -> None:
    """Puts PyTorch's modules that drop into a state in which they don't."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
        elif isinstance(module, nn.RNNBase):
            module.dropout = 0.0


class _Taken(NamedTuple):
    """Which argument of a function is its probability, and which, if any, says whether it drops at all.

    Each by its place, its name and its default.
    """

    p: tuple[int, str, float]
    training: tuple[int, str, bool] | None


_P = (1, "p", 0.5)
_FUNCTIONS: dict[Callable[..., Any], _Taken] = {
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), _Taken(_P, (2, "training", True))),
    **dict.fromkeys((F.alpha_dropout, F.feature_alpha_dropout), _Taken(_P, (2, "training", False))),
    **dict.fromkeys(
        (torch.dropout, torch.dropout_, torch.alpha_dropout, torch.alpha_dropout_, torch.feature_dropout,
         torch.feature_dropout_, torch.feature_alpha_dropout, torch.feature_alpha_dropout_, torch.native_dropout),
        _Taken(_P, (2, "train", True)),
    ),
    F.scaled_dot_product_attention: _Taken((4, "dropout_p", 0.0), None),
    F.multi_head_attention_forward: _Taken((10, "dropout_p", 0.0), (13, "training", True)),
}  # fmt: skip


class _Mode(TorchFunctionMode):
    """Sees each call of a function that drops.

    Args:
        seen: told of each, where it is not to be switched off.
    """

    def __init__(self, seen: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, taken = kwargs or {}, _FUNCTIONS.get(func)
        if taken is None or not (_given(taken.training, args, kwargs) and _given(taken.p, args, kwargs)):
            return func(*args, **kwargs)
        if self._seen is not None:
            self._seen()
            return func(*args, **kwargs)
        place, name, _ = taken.p
        if len(args) > place:
            return func(*args[:place], 0.0, *args[place + 1 :], **kwargs)
        return func(*args, **{**kwargs, name: 0.0})


def _given(argument: tuple[int, str, Any] | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if argument is None:
        return True
    place, name, default = argument
    return args[place] if len(args) > place else kwargs.get(name, default)


@contextmanager
def called_dropouts_off() -> Iterator[None]:
    """Inside, dropouts that are called as functions (`F.dropout`, that of attention) drop nothing, in modules that backward runs
    again, too."""
    mode = _Mode()

    def around(module: nn.Module) -> AbstractContextManager[Any]:
        # On top of modes that draw masks in their own way; autograd's engine goes on without any.
        modes = _get_current_function_mode_stack()
        return nullcontext() if modes and modes[-1] is mode else mode

    with around_module_calls(around), mode:
        yield


def dropping(model: nn.Module, run: Callable[[], object]) -> list[str]:
    """Returns the names of the modules that drop: PyTorch's own, and those that call a dropout as a function, once a call.

    Args:
        model: the network; its dropout modules are off afterwards.
        run: calls it.
    """
    found = [
        name
        for name, m in model.named_modules()
        if m.training
        and (
            (isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0) or (isinstance(m, nn.RNNBase) and m.dropout > 0)
        )
    ]
    names = {module: name for name, module in model.named_modules()}
    inside: list[nn.Module] = []

    def see() -> None:
        found.append(names[next((m for m in reversed(inside) if m in names), model)])

    @contextmanager
    def around(module: nn.Module) -> Iterator[None]:
        inside.append(module)
        try:
            yield
        finally:
            inside.pop()

    switch_dropouts_off(model)  # what drops now is called as a function
    with around_module_calls(around), _Mode(see):
        run()
    return found
