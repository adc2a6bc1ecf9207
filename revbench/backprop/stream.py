"""How the two halves of a reversible chain take up a residual and give it back.

This is a seam: a chain is written against `add` and `subtract`, and another representation of the
stream (a fixed-point pair, whose subtraction is exact) brings its own.
"""

from __future__ import annotations

import torch
from torch import Tensor


class FloatStream:
    """Halves in floating point: what `add` rounded off, `subtract` does not bring back.

    One half step costs at most half a unit in the last place of the sum each way; how that grows
    along a chain is what the drift probe measures.
    """

    def enter(self, half: Tensor) -> Tensor:
        """Returns a half in the dtype of the stream: float32 under autocast, whatever the unit before it returned.

        Reconstruction in bfloat16 would lose the gradient's accuracy, and the strategies would differ.
        """
        low = half.dtype in (torch.bfloat16, torch.float16)
        return half.float() if low and torch.is_autocast_enabled(half.device.type) else half

    def add(self, half: Tensor, residual: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``half + residual``, written into the residual if nobody else sees it, else into a new tensor."""
        return torch.add(half, residual, out=into)

    def subtract(self, half: Tensor, residual: Tensor, *, into: Tensor | None) -> Tensor:
        """Returns ``half - residual``, written into one of the two if nobody else sees it, else into a new tensor."""
        return torch.sub(half, residual, out=into)
