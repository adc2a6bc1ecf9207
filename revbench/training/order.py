"""Which images a step sees, and how they are augmented: a function of seed and step alone.

So a pair sees the same batches, and a resumed run goes on where it was.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


class Batches:
    """Augmented training batches from images that lie in a device's memory.

    Every epoch shows every image once, in an order of its own; a batch may reach into the next epoch. Crops are of the
    image's own size out of the image with zero pixels around it, mirrored half of the time if a mirrored image has the
    same label (Gomez et al. 2017, section 4, as He et al. 2016).

    Args:
        images: uint8, ``(N, 3, S, S)``, on the device where they are augmented.
        labels: int64, ``(N,)``, there too.
        batch_size: images a step.
        seed: of order and augmentation.
        padding: pixels on every side.
        flip: whether to mirror.
    """

    def __init__(self, images: Tensor, labels: Tensor, *, batch_size: int, seed: int, padding: int, flip: bool) -> None:
        self._padded = F.pad(images, (padding,) * 4)
        self._labels = labels
        self._batch_size, self._seed, self._padding, self._flip = batch_size, seed, padding, flip
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step (from 0).

        Returns:
            uint8 images ``(B, 3, S, S)`` and labels ``(B,)`` on the images' device.
        """
        count = len(self._labels)
        first = step * self._batch_size
        positions = torch.arange(first, first + self._batch_size)
        epochs = torch.div(positions, count, rounding_mode="floor")
        chosen = torch.cat(
            [self._epoch_order(int(e))[positions[epochs == e] % count] for e in epochs.unique().tolist()]
        )
        generator = torch.Generator().manual_seed(_mixed(self._seed, step, 1))
        corners = torch.randint(2 * self._padding + 1, (self._batch_size, 2), generator=generator)
        mirrored = torch.rand(self._batch_size, generator=generator) < 0.5
        return self._cut(chosen, corners, mirrored & self._flip)

    def _cut(self, chosen: Tensor, corners: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        device = self._padded.device
        size = self._padded.shape[-1] - 2 * self._padding
        along = torch.arange(size)
        rows = corners[:, :1] + along
        columns = torch.where(mirrored[:, None], corners[:, 1:] + along.flip(0), corners[:, 1:] + along)
        chosen, rows, columns = (index.to(device, non_blocking=True) for index in (chosen, rows, columns))
        cut = self._padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2).contiguous(), self._labels[chosen]

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(len(self._labels), generator=torch.Generator().manual_seed(_mixed(self._seed, epoch, 0)))


def _mixed(seed: int, number: int, purpose: int) -> int:
    """A seed for each number and purpose; unlike seeds share no stream (splitmix64's finaliser, Steele et al. 2014)."""
    mask = 2**64 - 1
    value = (seed * 0x9E3779B97F4A7C15 + number * 2 + purpose + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) & (2**63 - 1)
