"""What is kept of a stream that enters a chain, and put back once it is reconstructed.

Of most chains its exact zeros, a bit a number. ``(0 + m) - m`` is zero only if both m are equal, and the second is computed
from a reconstructed activation. So zeros (a padded channel, a black border, an empty half) come back as a few times 1e-17, of
either sign; and zero is where activations have their kink, batch norm of a constant channel its steepest slope,
comparisons their step. Of couplings that lose more on the way back all of it.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Integers of the same size: a number is set to zero where it stands by an `and` of its bits, many times as fast as by a mask.
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class Entered(Protocol):
    """What is known of a stream that entered."""

    def put_back(self, stream: Tensor) -> None:
        """Makes the reconstructed stream, in place, what it is known to have been."""


class Whole:
    """Keeps a stream.

    Args:
        stream: any.
    """

    def __init__(self, stream: Tensor) -> None:
        self._kept = stream.detach()
        self._version = self._kept._version

    def put_back(self, stream: Tensor) -> None:
        """Copies what was kept.

        Raises:
            RuntimeError: it was changed in place since.
        """
        if self._kept._version != self._version:
            raise RuntimeError(
                "what entered a reversible chain was changed in place between forward and backward, and its coupling keeps it;"
                " change a copy of it, or set keep_first=False"
            )
        stream.copy_(self._kept)


class Zeros:
    """Remembers where a tensor is exactly zero. What is kept does not depend on the values, so that memory does not, either.

    Args:
        stream: any shape and strides, real or complex.
    """

    def __init__(self, stream: Tensor) -> None:
        self._packed = None if stream.is_meta else _pack(stream.detach() == 0)

    def put_back(self, stream: Tensor) -> None:
        """Set to zero, in place, what was zero; `stream` has the shape of the first one."""
        if self._packed is None:
            return
        zero = _unpack(self._packed)[: stream.numel()].view(stream.shape)
        if stream.is_complex():
            stream, zero = torch.view_as_real(stream), zero[..., None]
        bits = _BITS[stream.element_size()]
        stream.view(bits).bitwise_and_(zero.to(bits).sub_(1))


def _pack(truths: Tensor) -> Tensor:
    """Eight truth values a byte: a word of eight bytes of 0 or 1 times 2^7 + 2^14 + … + 2^56 has them in its last byte."""
    words = F.pad(truths.reshape(-1), (0, -truths.numel() % 8)).view(torch.int64)
    return (words * 0x0102040810204080).bitwise_right_shift_(56).to(torch.uint8)


def _unpack(packed: Tensor) -> Tensor:
    """Returns the inverse: each byte is repeated eight times, and of each copy one bit is made 0 or 1."""
    words = packed.to(torch.int64).mul_(0x0101010101010101).bitwise_and_(-0x7FBFDFEFF7FBFDFF)  # 0x8040201008040201
    return words.add_(0x7F7F7F7F7F7F7F7F).bitwise_right_shift_(7).bitwise_and_(0x0101010101010101).view(torch.bool)
