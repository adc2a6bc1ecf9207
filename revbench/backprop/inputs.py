"""What enters a chain: made fit for a strategy, or found to be what plain autograd alone can differentiate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad


def stream_dtype(stream: Tensor) -> Tensor:
    """Returns what enters a chain in the dtype of its streams: float32 under autocast, whatever the unit before it returned.

    Reconstruction in bfloat16 would lose the gradient's accuracy, and the strategies would differ.
    """
    low = stream.dtype in (torch.bfloat16, torch.float16)
    return stream.float() if low and torch.is_autocast_enabled(stream.device.type) else stream


def dense(half: Tensor) -> Tensor:
    """Returns a tensor none of whose elements share memory (an expanded one, overlapping windows), which can be laid out
    again."""
    return half.clone(memory_format=torch.contiguous_format) if torch._debug_has_internal_overlap(half) == 1 else half


# PyTorch 2.6 does not tell. Not `torch.compiler.is_exporting()`, which 2.9 answers with yes inside `torch.compile`.
_TELLS_EXPORT = hasattr(torch.compiler, "_is_exporting_flag")


def _is_exporting() -> bool:
    return _TELLS_EXPORT and torch.compiler._is_exporting_flag


def transformed(halves: Iterable[Tensor]) -> bool:
    """Tells whether a transform surrounds this call that needs plain autograd.

    That is one of `torch.func`, forward-mode differentiation, `torch.jit.trace` or `torch.export`. The call then runs under
    `stored`, and a warning says so.
    """
    if _is_exporting():
        what = "torch.export"
    elif torch._C._are_functorch_transforms_active():
        what = "a transform of torch.func"
    elif forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(half).tangent is not None for half in halves):
        what = "forward-mode differentiation"
    elif torch._C._get_tracing_state() is not None:
        what = "torch.jit.trace"
    else:
        return False
    warnings.warn(
        f"under {what} a reversible chain runs by plain autograd, as with strategy 'stored', and saves no memory",
        stacklevel=4,
    )
    return True
