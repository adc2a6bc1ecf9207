"""Real images, in memory: scikit-learn's digits, any image folder, torchvision's CIFAR and ImageNet."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from revbench.errors import UserError
from revbench.training.sources import DIGITS, HELD_OUT, TORCHVISION, split_folders

TRAIN_LIMIT = 10_000
VALIDATION_LIMIT = 1_000


@dataclass(frozen=True)
class Images:
    """A data set in memory.

    Attributes:
        train_images, validation_images: uint8, ``(N, 3, S, S)``.
        train_labels, validation_labels: int64, ``(N,)``.
        num_classes: number of classes.
        flip: whether a mirrored image has the same label (not so for digits).
        train_available: images that the whole training set holds; `train_images` may be fewer.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    num_classes: int
    flip: bool
    train_available: int

    def to(self, device: str) -> Images:
        """The same in a device's memory."""
        tensors = ("train_images", "train_labels", "validation_images", "validation_labels")
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def load_images(
    source: str,
    *,
    image_size: int,
    train_limit: int = TRAIN_LIMIT,
    validation_limit: int = VALIDATION_LIMIT,
) -> Images:
    """Load a data set, or an evenly drawn part of it, scaled to `image_size`.

    Args:
        source: ``digits``; ``cifar10``, ``cifar100`` or ``imagenet`` through torchvision, from the folder that the
            variable ``REVBENCH_DATA_ROOT`` names (the CIFAR sets are downloaded there if absent); or the path
            of an image folder, one subfolder a class, with or without ``train`` and ``test`` (or ``val``)
            above them. Without, a fifth is held out for validation.
        image_size: height and width in pixels.
        train_limit, validation_limit: at most so many images are decoded, drawn with a fixed seed.

    Raises:
        UserError: a path that does not exist or holds no images, an image that can't be read, a data set that
            can't be had.
    """
    if source == DIGITS:
        return _digits(image_size)
    if source in TORCHVISION:
        train, validation = _torchvision(source)
    else:
        train, validation = _folder(Path(source))
    classes = len(train.classes)
    train_images, train_labels = _decode(train, image_size, train_limit)
    validation_images, validation_labels = _decode(validation, image_size, validation_limit)
    return Images(
        train_images, train_labels, validation_images, validation_labels, classes, flip=True,
        train_available=len(train),
    )  # fmt: skip


def _digits(size: int) -> Images:
    """Handwritten digits of the UCI repository (Alpaydin & Kaynak 1998), 8x8, enlarged; a fifth for validation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) * (255.0 / 16.0)
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    images = images.round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(digits.target).long()
    held_out, kept = _held_out(len(labels))
    return Images(
        images[kept], labels[kept], images[held_out], labels[held_out], 10, flip=False, train_available=len(kept)
    )


def _held_out(count: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: count // HELD_OUT], order[count // HELD_OUT :]


class _Subset:
    """Some items of an image folder, with its classes."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices, self.classes = dataset, indices, dataset.classes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[self.indices[i]]


def _folder(path: Path) -> tuple[Any, Any]:
    if not path.is_dir():
        raise UserError(f"data path {str(path)!r} is not a folder")
    roots = split_folders(path)
    if len(roots) == 2:
        train, validation = (_image_folder(root) for root in roots)
        if set(validation.classes) - set(train.classes):
            strange = sorted(set(validation.classes) - set(train.classes))[0]
            raise UserError(f"data path {str(path)!r}: only the validation images have a class {strange!r}")
        numbers = [train.class_to_idx[name] for name in validation.classes]
        validation.target_transform = numbers.__getitem__  # a class means the same in both
        return train, validation
    whole = _image_folder(path)
    held_out, kept = _held_out(len(whole))
    return _Subset(whole, kept.tolist()), _Subset(whole, held_out.tolist())


def _image_folder(path: Path) -> Any:
    from torchvision.datasets import ImageFolder

    try:
        return ImageFolder(str(path))
    except FileNotFoundError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"data path {str(path)!r} holds no images in one subfolder a class: {first}") from error


def _torchvision(name: str) -> tuple[Any, Any]:
    from torchvision import datasets

    root = Path(os.environ.get("REVBENCH_DATA_ROOT", Path.home() / ".cache" / "revbench"))
    makers: dict[str, Callable[[bool], Any]] = {
        "cifar10": lambda train: datasets.CIFAR10(str(root), train=train, download=True),
        "cifar100": lambda train: datasets.CIFAR100(str(root), train=train, download=True),
        "imagenet": lambda train: datasets.ImageNet(str(root), split="train" if train else "val"),
    }
    try:
        return makers[name](True), makers[name](False)
    except Exception as error:  # torchvision and urllib raise many kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"data set {name!r} can't be had in {root}: {first}; put it there by hand, or give a folder"
        ) from error


def _decode(dataset: Any, size: int, limit: int) -> tuple[Tensor, Tensor]:
    from PIL import UnidentifiedImageError
    from torchvision.transforms import functional

    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))[:limit].sort().values
    images = torch.empty(len(order), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(order), dtype=torch.int64)
    for i, index in enumerate(order.tolist()):
        try:
            image, label = dataset[index]
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"image {index} of the data can't be read: {error}; remove or mend the file") from error
        image = image.convert("RGB")
        if image.size != (size, size):  # as torchvision's evaluation: the short side to size, then the middle
            image = functional.center_crop(functional.resize(image, size), [size, size])
        images[i] = functional.pil_to_tensor(image)
        labels[i] = label
    return images, labels
