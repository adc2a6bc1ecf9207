"""Who else holds a tensor: what must be known before its memory is written over.

PyTorch counts the holders of a tensor and of its memory, but what the counts are for a tensor that nobody else
holds is its own affair and changes between versions. It is tried out once, on import; where a version can't
tell one holder from two, the answer is always that there are others, and memory is taken anew.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

_COUNTED = hasattr(Tensor, "_use_count") and hasattr(torch._C, "_storage_Use_Count")


def _memory_holders(tensor: Tensor) -> int:
    return torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)


def _holders(gradient: Tensor) -> tuple[int, ...]:
    """Names in Python, names in C++, tensors on the same memory."""
    return sys.getrefcount(gradient), gradient._use_count(), _memory_holders(gradient)


def _try_out_memory() -> int | None:
    value = torch.ones(2).sigmoid()
    alone = _memory_holders(value)
    view = value.view(2)
    return alone if _memory_holders(value) > alone and view is not None else None


def _try_out_gradient() -> tuple[int, ...] | None:
    seen: list[tuple[int, ...]] = []

    def look(gradient: Tensor) -> None:  # as deep below `backward` as `gradient_is_ours`
        seen.append(_holders(gradient))

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            look(gradient)
            return gradient

    x = torch.ones(2, 2, requires_grad=True)
    torch.autograd.grad((Look.apply(x) @ torch.ones(2, 2)).sum(), x)
    # Addition hands one tensor to both of its inputs: the first of them must see that the second waits for it.
    torch.autograd.grad(((Look.apply(x) + Look.apply(x)) @ torch.ones(2, 2)).sum(), x)
    alone, shared, _ = seen
    return alone if alone != shared else None


with torch.inference_mode(False), torch.enable_grad():
    _MEMORY_ALONE = _try_out_memory() if _COUNTED else None
    _GRADIENT_ALONE = _try_out_gradient() if _COUNTED else None


def memory_is_ours(tensor: Tensor) -> bool:
    """Whether no other tensor lies on this one's memory: no view, nothing that a graph has saved, nobody's attribute."""
    return _MEMORY_ALONE is not None and _memory_holders(tensor) == _MEMORY_ALONE


def gradient_is_ours(gradient: Tensor) -> bool:
    """Inside the `backward` of an autograd function: whether its caller alone holds the gradient that it was given.

    To be called by that `backward` itself, with its own argument: each name in between counts.
    """
    return _GRADIENT_ALONE is not None and _holders(gradient) == _GRADIENT_ALONE
