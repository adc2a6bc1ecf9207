"""Exact zeros of the half that a chain's first function is given: kept, a bit a number, and put back.

``(0 + m) - m`` is zero only if both m are equal, and the second is computed from a reconstructed activation. So zeros (a
padded channel, a black border, an empty half) come back as a few times 1e-17, of either sign; and zero is where
activations have their kink, batch norm of a constant channel its steepest slope, comparisons their step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Integers of the same size: a number is set to zero where it stands by an `and` of its bits, many times as fast as by a mask.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Zeros:
    """Remembers where a tensor is exactly zero. What is kept does not depend on the values, so that memory does not, either.

    Args:
        half: any shape and strides, real or complex.
    """

    def __init__(self, half: Tensor) -> None:
        self._packed = None if half.is_meta else _pack(half.detach() == 0)

    def put_back(self, half: Tensor) -> None:
        """Set to zero, in place, what was zero; `half` has the shape of the first one."""
        if self._packed is None:
            return
        zero = _unpack(self._packed)[: half.numel()].view(half.shape)
        if half.is_complex():
            half, zero = torch.view_as_real(half), zero[..., None]
        bits = _BITS[half.element_size()]
        half.view(bits).bitwise_and_(zero.to(bits).sub_(1))


def _pack(truths: Tensor) -> Tensor:
    """Eight truth values a byte: a word of eight bytes of 0 or 1 times 2^7 + 2^14 + … + 2^56 has them in its last byte."""
    words = F.pad(truths.reshape(-1), (0, -truths.numel() % 8)).view(torch.int64)
    return (words * 0x0102040810204080).bitwise_right_shift_(56).to(torch.uint8)


def _unpack(packed: Tensor) -> Tensor:
    """Returns the inverse: each byte is repeated eight times, and of each copy one bit is made 0 or 1."""
    words = packed.to(torch.int64).mul_(0x0101010101010101).bitwise_and_(-0x7FBFDFEFF7FBFDFF)  # 0x8040201008040201
    return words.add_(0x7F7F7F7F7F7F7F7F).bitwise_right_shift_(7).bitwise_and_(0x0101010101010101).view(torch.bool)
