"""Which images a step sees, and how they are augmented: a function of seed and step alone.

So a pair sees the same batches, a resumed run goes on where it was, and several processes share the batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """Which part of every batch this process takes; by default it is alone and takes all.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def of(self, count: int) -> slice:
        """Returns this process's items of a batch of so many, which `world_size` divides."""
        size = count // self.world_size
        return slice(self.rank * size, (self.rank + 1) * size)


ALONE = Share()


class Order:
    """The order in which images are gone through: every epoch shows each once, in an order of its own; a batch may
    reach into the next epoch.

    Args:
        count: number of images.
        batch_size: images a step, of all processes together.
        seed: of order and augmentation.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self._count, self._batch_size, self._seed = count, batch_size, seed
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    def indices(self, step: int) -> Tensor:
        """int64 ``(B,)``: the images of a step (from 0)."""
        first = step * self._batch_size
        positions = torch.arange(first, first + self._batch_size)
        epochs = torch.div(positions, self._count, rounding_mode="floor")
        parts = [self._epoch_order(int(e))[positions[epochs == e] % self._count] for e in epochs.unique().tolist()]
        return torch.cat(parts)

    def generator(self, step: int) -> torch.Generator:
        """Returns what draws the augmentation of a step."""
        return torch.Generator().manual_seed(mixed(self._seed, step, 1))

    def _shuffled(self, epoch: int) -> Tensor:
        return torch.randperm(self._count, generator=torch.Generator().manual_seed(mixed(self._seed, epoch, 0)))


class Batches:
    """Augmented training batches from images that lie in a device's memory.

    Crops are of the image's own size out of the image with zero pixels around it, mirrored half of the time if a mirrored
    image has the same label (Gomez et al. 2017, section 4, as He et al. 2016).

    Args:
        images: uint8, ``(N, 3, S, S)``, on the device where they are augmented.
        labels: int64, ``(N,)``, there too.
        batch_size: images a step, of all processes together.
        seed: of order and augmentation.
        padding: pixels on every side.
        flip: whether to mirror.
        share: this process's.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        seed: int,
        padding: int,
        flip: bool,
        share: Share = ALONE,
    ) -> None:
        self._padded = F.pad(images, (padding,) * 4)
        self._labels = labels
        self._order = Order(len(labels), batch_size, seed)
        self._batch_size, self._padding, self._flip, self._share = batch_size, padding, flip, share

    @property
    def bytes(self) -> int:
        """What images and labels take in the device's memory."""
        return self._padded.nbytes + self._labels.nbytes

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """Returns the batch of a step (from 0), as far as it is this process's.

        Returns:
            uint8 images ``(B, 3, S, S)`` and labels ``(B,)`` on the images' device.
        """
        generator = self._order.generator(step)
        corners = torch.randint(2 * self._padding + 1, (self._batch_size, 2), generator=generator)
        mirrored = (torch.rand(self._batch_size, generator=generator) < 0.5) & self._flip
        own = self._share.of(self._batch_size)
        return self._cut(self._order.indices(step)[own], corners[own], mirrored[own])

    def _cut(self, chosen: Tensor, corners: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        device = self._padded.device
        size = self._padded.shape[-1] - 2 * self._padding
        along = torch.arange(size)
        rows = corners[:, :1] + along
        columns = torch.where(mirrored[:, None], corners[:, 1:] + along.flip(0), corners[:, 1:] + along)
        chosen, rows, columns = (index.to(device, non_blocking=True) for index in (chosen, rows, columns))
        cut = self._padded[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return cut.permute(0, 3, 1, 2).contiguous(), self._labels[chosen]


def mixed(seed: int, number: int, purpose: int) -> int:
    """Returns a seed for each number and purpose; unlike seeds share no stream (splitmix64's finaliser, Steele et al. 2014)."""
    mask = 2**64 - 1
    value = (seed * 0x9E3779B97F4A7C15 + number * 2 + purpose + 1) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) & (2**63 - 1)
