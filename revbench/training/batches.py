"""Where a training's batches come from: the device's memory, or files that other processes read ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from revbench.case import Case
from revbench.errors import UserError
from revbench.paper.recipes import RECIPES
from revbench.training.data import Images, ImageSet
from revbench.training.loaders import batches_of, check_shared_memory
from revbench.training.order import ALONE, Batches, Order, Share

VALIDATION_BATCH = 200
# Of ImageNet's training images, each channel between 0 and 1 (torchvision's reference training).
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Batch = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What there is to train on.

    Attributes:
        item: ``image``, ``token``, or ``item`` of what a factory draws.
        train_items, validation_items: how many are used.
        train_available: how many the whole training set holds.
        mean, deviation: of each channel between 0 and 1, by which images are normalised; none of tokens.
        sha256: a digest of what is trained on: of pixels and labels, of the files' names and labels, or of the text.
        validation_sha256: the same of what is validated on.
        device_bytes: what it takes in the device's memory.
    """

    item: str
    train_items: int
    train_available: int
    validation_items: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    sha256: str
    validation_sha256: str
    device_bytes: int

    @property
    def identity(self) -> str:
        """What is equal for all processes of a training, and before and after a resume."""
        return f"{self.sha256} {self.validation_sha256}"


class Supply(Protocol):
    """Batches of bytes, on the device: uint8 images ``(B, 3, S, S)`` and int64 labels ``(B,)``, or int64 tokens ``(B, T)`` and
    those that follow them."""

    facts: Facts

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Returns this process's share of the augmented batches of these steps."""

    def validation(self) -> Iterator[Batch]:
        """Returns this process's share of the validation images, as they are."""


class MemorySupply:
    """Images that lie in the device's memory and are augmented there: nothing is waited for.

    Args:
        case: its recipe, batch size, seed and device.
        images: put into the device's memory.
        share: of each batch.
    """

    def __init__(self, case: Case, images: Images, share: Share = ALONE) -> None:
        self._batches = Batches(
            images.train_images.to(case.device), images.train_labels.to(case.device), batch_size=case.batch_size,
            seed=case.seed, padding=RECIPES[case.recipe].padding, flip=images.flip, share=share,
        )  # fmt: skip
        own = slice(share.rank, None, share.world_size)
        self._validation = [t[own].to(case.device) for t in (images.validation_images, images.validation_labels)]
        mean, deviation = _moments(images.train_images)
        self.facts = Facts(
            item="image",
            train_items=len(images.train_labels),
            train_available=images.train_available,
            validation_items=len(images.validation_labels),
            mean=mean,
            deviation=deviation,
            sha256=images.sha256(),
            validation_sha256=images.sha256(validation=True),
            device_bytes=self._batches.bytes + sum(t.nbytes for t in self._validation),
        )

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Returns the batches from step `first` up to, without, step `last`."""
        for step in range(first, last):
            yield self._batches.at(step)

    def validation(self) -> Iterator[Batch]:
        """Returns the validation images in batches."""
        images, labels = self._validation
        for start in range(0, len(labels), VALIDATION_BATCH):
            yield images[start : start + VALIDATION_BATCH], labels[start : start + VALIDATION_BATCH]


def _moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the standard deviation of each channel, between 0 and 1, from counts of its 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp_min(1e-3).tolist())


class FileSupply:
    """Image files, each decoded and cropped when its turn comes, by `RandomResizedCrop` and a flip; to validate, the
    short side is scaled to 8/7 of the size and the middle taken. Which crop an image gets depends on seed and step alone.

    Args:
        case: its batch size, seed, device and number of images.
        sets: training and validation images.
        image_size, validation_limit, loaders, share: see `open_supply`.

    Raises:
        UserError: the loaders need more shared memory than there is.
    """

    def __init__(
        self,
        case: Case,
        sets: tuple[ImageSet, ImageSet],
        *,
        image_size: int,
        validation_limit: int = 0,
        loaders: int = 0,
        share: Share = ALONE,
    ) -> None:
        from torchvision.transforms import v2

        train, validation = sets[0].limited(case.data_images), sets[1].limited(validation_limit)
        largest = max(case.batch_size // share.world_size, VALIDATION_BATCH) * 3 * image_size**2
        check_shared_memory(loaders, largest)
        self._case, self._share, self._loaders = case, share, loaders
        self._order = Order(len(train), case.batch_size, case.seed)
        crop = v2.Compose(
            [v2.RandomResizedCrop(image_size, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        )
        middle = v2.Compose([v2.Resize(image_size * 8 // 7), v2.CenterCrop(image_size), v2.PILToTensor()])
        self._train, self._validation = _Cropped(train, crop), _Cropped(validation, middle)
        self.facts = Facts(
            item="image", train_items=len(train), train_available=len(sets[0]), validation_items=len(validation),
            mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION, sha256=train.sha256(),
            validation_sha256=validation.sha256(),
            device_bytes=0,
        )  # fmt: skip

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Returns the batches from step `first` up to, without, step `last`.

        Raises:
            UserError: an image that can't be read, when its turn comes.
        """
        return self._read(self._train, (self._keys(step) for step in range(first, last)))

    def validation(self) -> Iterator[Batch]:
        """Returns the validation images in batches; the same error."""
        own = range(self._share.rank, len(self._validation), self._share.world_size)
        keys = [(i, 0) for i in own]
        chunks = (keys[i : i + VALIDATION_BATCH] for i in range(0, len(keys), VALIDATION_BATCH))
        return self._read(self._validation, chunks)

    def _keys(self, step: int) -> list[tuple[int, int]]:
        seeds = torch.randint(2**62, (self._case.batch_size,), generator=self._order.generator(step))
        pairs = torch.stack([self._order.indices(step), seeds], 1)[self._share.of(self._case.batch_size)]
        return [(index, seed) for index, seed in pairs.tolist()]

    def _read(self, images: _Cropped, keys: Iterator[list[tuple[int, int]]]) -> Iterator[Batch]:
        for found in batches_of(images, keys, _collated, loaders=self._loaders, cuda=self._case.on_gpu):
            if isinstance(found, str):
                raise UserError(found)
            pixels, labels = found
            yield pixels.to(self._case.device, non_blocking=True), labels.to(self._case.device, non_blocking=True)


class _Cropped(Dataset[Any]):
    """Images and labels by index and seed of the crop; what can't be read is a word, since an exception's would be lost on
    the way from another process."""

    def __init__(self, images: ImageSet, transform: Any) -> None:
        self._images, self._transform = images, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int] | str:
        index, seed = key
        try:
            image, label = self._images.decoded(index)
        except UserError as error:
            return str(error)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # the CPU's alone: a GPU's is the training's
            return self._transform(image), label


def _collated(items: list[tuple[Tensor, int] | str]) -> Batch | str:
    """Returns a batch of items, or the word of the first that could not be read."""
    whole = [item for item in items if not isinstance(item, str)]
    if len(whole) < len(items):
        return next(item for item in items if isinstance(item, str))
    return torch.stack([pixels for pixels, _ in whole]), torch.tensor([label for _, label in whole])
