"""Exact zeros of the half that a chain's first function is given: kept, a bit a number, and put back.

``(0 + m) - m`` is zero only if both m are equal, and the second is computed from a reconstructed activation. So zeros (a
padded channel, a black border, an empty half) come back as a few times 1e-17, of either sign; and zero is where
activations have their kink, batch norm of a constant channel its steepest slope, comparisons their step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


class Zeros:
    """Where a tensor is exactly zero.

    Args:
        half: any shape and strides, real or complex. On the CPU nothing is kept of one without zeros; on a GPU that would have
            to be waited for.
    """

    def __init__(self, half: Tensor) -> None:
        self._packed: Tensor | None = None
        half = half.detach()
        waits_for_nothing = half.device.type != "cpu"
        if half.is_meta or (isinstance(half, FakeTensor) and not waits_for_nothing):
            return
        zero = half == 0
        if waits_for_nothing or zero.any():
            bits = F.pad(zero.reshape(-1), (0, -zero.numel() % 8)).view(-1, 8)
            self._packed = (bits * _powers(half.device)).sum(1, dtype=torch.uint8)

    def put_back(self, half: Tensor) -> None:
        """Set to zero, in place, what was zero; `half` has the shape of the first one."""
        if self._packed is not None:
            bits = (self._packed[:, None] & _powers(half.device)) != 0
            half.masked_fill_(bits.view(-1)[: half.numel()].view(half.shape), 0)


def _powers(device: torch.device) -> Tensor:
    return 2 ** torch.arange(8, dtype=torch.uint8, device=device)
