"""What a GPU does otherwise than the CPU on which predictions run, as far as it shows in the memory of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from revbench.observing.module_calls import around_module_calls, unless_entered

_MIB = 2**20
_FLASH_WIDTH = 256  # of a head, at most
_F_DROPOUT, _F_ATTENTION = F.dropout, F.scaled_dot_product_attention
# Functions that CUDA's autocast computes in float32 and the CPU's does not (PyTorch's "Autocast Op Reference").
_FLOAT32 = frozenset(
    (
        F.cross_entropy, F.nll_loss, F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.kl_div, F.binary_cross_entropy_with_logits,
        F.layer_norm, F.group_norm, F.rms_norm, F.softplus, F.normalize, F.cosine_similarity, torch.exp, torch.log,
        torch.logsumexp, torch.pow, torch.rsqrt, torch.reciprocal, torch.norm, Tensor.exp, Tensor.log, Tensor.logsumexp,
        Tensor.pow, Tensor.__pow__, Tensor.rsqrt, Tensor.reciprocal, Tensor.norm,
    )
)  # fmt: skip
# The same, but it sets the dtype of the result instead of widening the input.
_FLOAT32_RESULT = frozenset(
    (
        F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, torch.sum, torch.prod, torch.cumsum, torch.cumprod,
        Tensor.softmax, Tensor.log_softmax, Tensor.sum, Tensor.prod, Tensor.cumsum, Tensor.cumprod,
    )
)  # fmt: skip


def block_bytes(nbytes: int) -> int:
    """Returns what PyTorch's CUDA allocator counts as given out for a tensor of this size.

    Multiples of 512 bytes; from 10 MiB on a segment of its own, in multiples of 2 MiB, of which a remainder of up to 1 MiB
    is not split off (CUDACachingAllocator: kMinBlockSize, kMinLargeAlloc, kRoundLarge, kSmallSize). A block that is taken
    from the cache may have another remainder.
    """
    block = _up(nbytes, 512)
    if block < 10 * _MIB:
        return block
    segment = _up(block, 2 * _MIB)
    return segment if segment - block <= _MIB else block


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Inside, functions keep what they keep on a GPU, also in modules that backward runs again."""
    mode = _AsOnGpu()
    # By name, too, for functions that call them inside of PyTorch, where no mode sees them (multi-head attention).
    named = {"dropout": _dropout, "scaled_dot_product_attention": _attention}
    before = {name: getattr(F, name) for name in named}
    for name, function in named.items():
        setattr(F, name, function)
    try:
        with around_module_calls(lambda _: unless_entered(mode)), mode:
            yield
    finally:
        for name, function in before.items():
            setattr(F, name, function)


class _AsOnGpu(TorchFunctionMode):
    """CUDA's autocast to float32 where the CPU's has none, and its dropout, which keeps one byte an element."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is _F_DROPOUT:
            return _dropout(*args, **kwargs)
        if func is _F_ATTENTION:
            return _attention(*args, **kwargs)
        if torch.is_autocast_enabled("cpu"):
            if func in _FLOAT32:
                args, kwargs = tree_map_only(Tensor, _widened, (args, kwargs))
            elif func in _FLOAT32_RESULT and any(_is_narrow(x) for x in args) and kwargs.get("dtype") is None:
                kwargs = {**kwargs, "dtype": torch.float32}
        return func(*args, **kwargs)


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or p == 0:
        return x
    out: Tensor = torch.native_dropout(x, p, training)[0]
    return x.copy_(out) if inplace else out


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Attention by the kernel that a GPU takes, which keeps no scores, with dropout, too: flash attention in half precision
    without a mask, else the memory-efficient one; by its definition where neither can.
    """
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (x.to(dtype) if x.dtype == torch.float32 else x for x in (query, key, value))
    grad = torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
    width, alignment = query.shape[-1], 8 if _is_narrow(query) else 4
    alike = query.dim() == 4 and key.shape[-1] == value.shape[-1] == width and query.dtype != torch.float64
    if alike and _is_narrow(query) and attn_mask is None and width <= _FLASH_WIDTH:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
        found = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, scale=scale
        )[0]
    elif alike and not enable_gqa and width % alignment == 0:
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -torch.inf)
        bias = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
        found = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, grad, dropout_p, is_causal, scale=scale
        )[0]
    else:
        found = _F_ATTENTION(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    attended: Tensor = found
    return attended


def _is_narrow(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)


def _widened(x: Tensor) -> Tensor:
    return x.float() if _is_narrow(x) else x
