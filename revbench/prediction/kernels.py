"""What kernels of the CPU keep, and their fake counterparts leave out.

A fake kernel tells the shape of a result, not what lies behind it: some losses return one number on a storage of the size of
their input, and the fused recurrent layer keeps a workspace whose size only its library knows. Both are asked of the real
kernels, at small sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_aten = torch.ops.aten
_LOSSES = (_aten.mse_loss.default, _aten.smooth_l1_loss.default, _aten.huber_loss.default, _aten.soft_margin_loss.default,
           _aten.binary_cross_entropy.default)  # fmt: skip
_RECURRENT = _aten.mkldnn_rnn_layer.default
_STEPS, _ITEMS = 32, 32  # of a real recurrent layer at least, from which the size of larger ones follows
_OPERATIONS = 1 << 28  # of which at most


class AsKernelsKeep(TorchDispatchMode):
    """Inside, on fake CPU tensors, results take the memory that the real kernels' results take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _LOSSES:
            if out.dim() == 0 and args[0].dim() > 0 and _keeps_all(func, out.dtype):
                whole = torch.broadcast_shapes(args[0].shape, args[1].shape).numel()
                return out.new_empty(whole).as_strided((), ())
        elif func is _RECURRENT and torch.is_grad_enabled():  # else it keeps none
            size = workspace_bytes(*args)
            return (*out[:3], out[3].new_empty(size, dtype=torch.uint8))
        return out


@functools.cache
def _keeps_all(loss: Callable[..., Tensor], dtype: torch.dtype) -> bool:
    """Tells whether the mean of a loss lies on a storage as large as its input."""
    with _disable_current_modes():
        x = torch.full((64,), 0.5, dtype=dtype)
        return loss(x, x).untyped_storage().nbytes() >= x.untyped_storage().nbytes()


def workspace_bytes(
    x: Tensor, of_input: Tensor, of_hidden: Tensor, bias: Tensor, other_bias: Tensor, hidden: Tensor, cell: Tensor,
    *rest: Any,
) -> int:  # fmt: skip
    """Returns what the fused recurrent layer (``mkldnn_rnn_layer``, whose arguments these are) keeps for backward.

    It is made of parts that grow with steps, with items and with both: where it would take too long to ask for the size
    itself, it follows from four smaller ones.
    """
    steps, items, features = x.shape
    shapes = tuple(tuple(weight.shape) for weight in (of_input, of_hidden, bias, other_bias))
    settings = tuple(tuple(setting) if isinstance(setting, (list, tuple)) else setting for setting in rest)
    ask = functools.partial(_real_workspace_bytes, features, shapes, hidden.shape[-1], x.dtype, settings)
    each = 2 * (of_input.numel() + of_hidden.numel())
    if steps * items * each <= _OPERATIONS:
        return ask(steps, items)
    few_items = min(items, _ITEMS)
    few_steps = min(steps, max(_STEPS, _OPERATIONS // (each * few_items)))
    many, half = ask(few_steps, few_items), few_steps // 2
    if few_items == items:
        return many + (many - ask(half, items)) * (steps - few_steps) // (few_steps - half)
    middle = few_items // 2

    def at(count: int) -> float:
        """Returns the bytes with so many items, along the steps."""
        there = ask(few_steps, count)
        if steps == few_steps:
            return there
        return there + (there - ask(half, count)) * (steps - few_steps) / (few_steps - half)

    return round(at(few_items) + (at(few_items) - at(middle)) * (items - few_items) / (few_items - middle))


@functools.lru_cache(256)
def _real_workspace_bytes(
    features: int, shapes: Sequence[tuple[int, ...]], hidden: int, dtype: torch.dtype, settings: tuple[Any, ...],
    steps: int, items: int,
) -> int:  # fmt: skip
    with _disable_current_modes(), torch.enable_grad():
        weights = [torch.zeros(shape, dtype=dtype) for shape in shapes]
        state = torch.zeros(items, hidden, dtype=dtype)
        arguments = [list(setting) if isinstance(setting, tuple) else setting for setting in settings]
        x = torch.zeros(steps, items, features, dtype=dtype)
        return int(_RECURRENT(x, *weights, state, state.clone(), *arguments)[3].nbytes)
