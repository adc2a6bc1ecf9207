"""Floating-point operations of one call of an operator: products, an add-multiply being two.

PyTorch's own formulas (`torch.utils.flop_counter`), and ours where it has none (recurrent layers, the CPU's fused attention,
products with vectors) or a wrong one (the backward pass of grouped convolutions, which it counts as if every channel
met every other). Operators that are known to multiply, or that are not PyTorch's own, and have no formula are named, so that
nobody takes a count for complete that is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

_aten = torch.ops.aten
# Namespaces whose operators multiply nothing that is not counted, or are made of those that are counted.
_ACCOUNTED = frozenset(("aten", "prim", "prims", "inductor", "profiler", "c10d", "_c10d_functional", "debugprims"))
# Parts of the names of PyTorch's operators that multiply and have no formula.
_MULTIPLIES = (
    "_trilinear", "cdist", "_fft_", "linalg_", "_linalg", "cholesky", "triangular_solve", "lu_solve", "_sparse_mm", "sspaddmm",
    "_sparse_addmm", "grouped_mm", "_int_mm", "int4pack_mm", "int8pack_mm", "_mixed_dtypes_linear", "encoder_layer_fwd",
    "native_multi_head_attention", "mkldnn_linear", "miopen_rnn", "addbmm", "quantized", "matrix_exp", "householder_product",
    "ormqr", "_spdiags", "_addmm_activation", "_flash_attention", "_efficient_attention", "_cslt_sparse_mm",
    "_euclidean_dist", "conv_tbc", "addr",
)  # fmt: skip


# Norms and checks of the same names, which are no products.
_REDUCTIONS = frozenset(("linalg_vector_norm", "linalg_cross", "_linalg_check_errors", "_linalg_vector_norm"))


class Operations:
    """Counts the operations of the operators that it is told of.

    Attributes:
        flops: so far.
        dtypes: that the products were computed in.
        uncounted: how many calls there were of each operator that multiplies, as far as is known, and has no formula.
    """

    def __init__(self) -> None:
        self.flops = 0
        self.dtypes: set[torch.dtype] = set()
        self.uncounted: dict[str, int] = {}

    def note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        """Take note of one call of an operator.

        Args:
            func: the operator, e.g. ``torch.ops.aten.mm.default``.
            args, kwargs: what it was called with.
            out: what it returned.
        """
        packet = getattr(func, "_overloadpacket", func)
        formula = _OURS.get(packet)
        if formula is not None:
            self.flops += formula(*args, **kwargs)
        elif (theirs := flop_registry.get(packet)) is not None and not _is_sparse(args):
            self.flops += theirs(*args, **kwargs, out_val=out)
        else:
            if theirs is not None or _multiplies(func, out):
                name = str(packet).replace(".", "::", 1) if "::" not in str(packet) else str(packet)
                self.uncounted[name] = self.uncounted.get(name, 0) + 1
            return
        self.dtypes |= {x.dtype for x in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(x, Tensor)}

    def uncounted_words(self) -> str | None:
        """Returns the operators that were not counted, in words; None if all were."""
        if not self.uncounted:
            return None
        most_first = sorted(self.uncounted.items(), key=lambda item: -item[1])
        named = [f"{name} ({count} {'call' if count == 1 else 'calls'})" for name, count in most_first]
        return ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")


def _multiplies(func: Any, out: Any) -> bool:
    namespace = getattr(func, "namespace", "aten")
    if namespace not in _ACCOUNTED:
        values = out if isinstance(out, (tuple, list)) else (out,)
        return any(isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) for x in values)
    if namespace != "aten":
        return False
    name = str(getattr(func, "_opname", func))
    return name not in _REDUCTIONS and any(part in name for part in _MULTIPLIES)


def _is_sparse(args: Sequence[Any]) -> bool:
    """Tells whether a product has to do with a sparse matrix, of which only some numbers are multiplied."""
    return any(isinstance(x, Tensor) and x.layout != torch.strided for x in args)


def _convolution_backward(grad_output: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """Returns the gradient of the input and that of the weight cost what the convolution itself does."""
    transposed, mask = rest[4], rest[7]
    pixels = math.prod((x if transposed else grad_output).shape[2:])
    forward = 2 * len(x) * pixels * weight.numel()
    return forward * (bool(mask[0]) + bool(mask[1]))


def _mkldnn_layer(x: Tensor, of_input: Tensor, of_hidden: Tensor, *rest: Any) -> int:
    """Counts one layer in one direction: at each step a product of the input and one of the state with all gates' weights."""
    return 2 * x.shape[0] * x.shape[1] * (of_input.numel() + of_hidden.numel())


def _mkldnn_layer_backward(x: Tensor, of_input: Tensor, of_hidden: Tensor, *rest: Any) -> int:
    return 2 * _mkldnn_layer(x, of_input, of_hidden)


def _cudnn_layers(x: Tensor, weights: Sequence[Tensor], *rest: Any) -> int:
    """Returns all layers and directions; `x` is (steps, items, features) or, packed, (all steps of all items, features)."""
    return 2 * math.prod(x.shape[:-1]) * sum(w.numel() for w in weights if w.dim() == 2)


def _cudnn_layers_backward(x: Tensor, weights: Sequence[Tensor], *rest: Any) -> int:
    return 2 * _cudnn_layers(x, weights)


def _attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> int:
    """Counts the scores, too, which are computed again."""
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


def _matrix_with_vector(matrix: Tensor, vector: Tensor) -> int:
    return 2 * matrix.numel()


def _added_matrix_with_vector(x: Tensor, matrix: Tensor, vector: Tensor, **scales: Any) -> int:
    return 2 * matrix.numel()


def _vectors(a: Tensor, b: Tensor) -> int:
    return 2 * a.numel()


_OURS: Mapping[Any, Callable[..., int]] = {
    _aten.convolution_backward: _convolution_backward,
    _aten.mkldnn_rnn_layer: _mkldnn_layer,
    _aten.mkldnn_rnn_layer_backward: _mkldnn_layer_backward,
    _aten._cudnn_rnn: _cudnn_layers,
    _aten._cudnn_rnn_backward: _cudnn_layers_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    _aten.mv: _matrix_with_vector,
    _aten.addmv: _added_matrix_with_vector,
    _aten.dot: _vectors,
    _aten.vdot: _vectors,
}
