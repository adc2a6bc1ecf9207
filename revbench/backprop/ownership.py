"""Who else holds a tensor: what must be known before its memory is written over.

PyTorch counts the holders of a tensor and of its memory, but what the counts are for a tensor that nobody else
holds is its own affair: it changes between versions, and while a debugger or a compiler looks at every call. So
it is tried out, on a tensor of two numbers, before each pass that asks; where one holder can't be told from two,
the answer is always that there are others, and memory is taken anew.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_UNCOUNTABLE = -1
_thread = threading.local()


def _memory_holders(tensor: Tensor) -> int:
    if not (type(tensor) is Tensor or isinstance(tensor, FakeTensor)) or tensor.layout is not torch.strided:
        return _UNCOUNTABLE  # what lies inside a wrapper, its own count does not tell
    try:
        storage = tensor.untyped_storage()
    except NotImplementedError:  # a batch of gradients at once (`is_grads_batched`)
        return _UNCOUNTABLE
    if not storage.resizable():  # NumPy's, or another library's, which counts its own holders
        return _UNCOUNTABLE
    return torch._C._storage_Use_Count(storage._cdata)


Holders = tuple[int, ...]  # names in Python, names in C++ where PyTorch tells them, tensors on the same memory


def _holders(gradient: Tensor) -> Holders:
    in_cpp = gradient._use_count() if hasattr(gradient, "_use_count") else 0
    return sys.getrefcount(gradient), in_cpp, _memory_holders(gradient)


def _look(gradient: Tensor, seen: list[Holders]) -> None:  # as deep below `backward` as `gradient_is_ours`
    seen.append(_holders(gradient))


class _Look(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seen: list[Holders]) -> Tensor:
        ctx.seen = seen
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        _look(gradient, ctx.seen)
        return gradient, None


def try_out_gradients() -> Holders | None:
    """Find out what `gradient_is_ours` should see, in this thread and under what surrounds this call.

    Returns:
        The holders of a gradient that nobody else holds; None if one holder can't be told from two.
    """
    if _MEMORY_ALONE is None:
        return None
    # What changes the counts: who looks at every call, and modes that wrap tensors.
    surroundings = sys.gettrace(), sys.getprofile(), torch._C._len_torch_dispatch_stack(), torch.compiler.is_compiling()
    if getattr(_thread, "surroundings", None) == surroundings:
        known: Holders | None = _thread.alone
        return known
    _thread.alone, _thread.surroundings = None, surroundings
    seen: list[Holders] = []
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(2, requires_grad=True)
        torch.autograd.grad(_Look.apply(x, seen).sin().sum(), x)
        # Addition hands one tensor to both of its inputs: the first of them must see that the second waits for it.
        torch.autograd.grad((_Look.apply(x, seen) + _Look.apply(x, seen)).sin().sum(), x)
    alone, shared, _ = seen
    found = alone if alone != shared else None
    _thread.alone = found
    return found


def gradient_is_ours(gradient: Tensor, alone: Holders | None) -> bool:
    """Inside the `backward` of an autograd function: whether its caller alone holds the gradient that it was given.

    To be called by that `backward` itself, with its own argument: each name in between counts.

    Args:
        gradient: the argument.
        alone: what `try_out_gradients` said in the same pass.
    """
    found = _holders(gradient)
    return found == alone and _UNCOUNTABLE not in found


def _try_out_memory() -> int | None:
    if not hasattr(torch._C, "_storage_Use_Count"):
        return None
    with torch.inference_mode(False):
        value = torch.ones(2).sigmoid()
        alone = _memory_holders(value)
        views = [value.view(2)]  # a name for it, so that it lives
        return alone if _memory_holders(value) > alone and len(views) == 1 else None


_MEMORY_ALONE = _try_out_memory()


def memory_is_ours(tensor: Tensor) -> bool:
    """Tells whether no other tensor lies on this one's memory: no view, nothing that a graph has saved, nobody's attribute."""
    return _MEMORY_ALONE is not None and _memory_holders(tensor) == _MEMORY_ALONE
