"""Real images: scikit-learn's digits, any image folder, torchvision's CIFAR and ImageNet; one by one or all in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from revbench.errors import UserError, first_line
from revbench.training.fetching import fetched_once
from revbench.training.image_folder import VisibleImageFolder, open_image
from revbench.training.sources import DIGITS, HELD_OUT, TORCHVISION, split_folders


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

    def sha256(self, *, validation: bool = False) -> str:
        """Returns a digest of the training images, or of those to validate, and their labels."""
        images = self.validation_images if validation else self.train_images
        labels = self.validation_labels if validation else self.train_labels
        digest = sha256(images.numpy().tobytes())
        digest.update(labels.numpy().tobytes())
        return digest.hexdigest()


class ImageSet:
    """Images of a torchvision data set, or some of them, decoded when they are asked for.

    Args:
        dataset: gives a PIL image and a label for each index.
        indices: of those that belong to this set; all if None.

    Attributes:
        classes: their names, in the order of the labels.
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | None = None) -> None:
        self._dataset = dataset
        self._indices = range(len(dataset)) if indices is None else indices
        self._files: Any = getattr(dataset, "samples", None)  # paths and labels, where it is made of files
        self.classes: Sequence[str] = dataset.classes

    def __len__(self) -> int:
        return len(self._indices)

    def limited(self, count: int) -> ImageSet:
        """Returns an evenly drawn part of at most so many, in their old order; all if 0."""
        if not 0 < count < len(self):
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(1))[:count].sort().values
        return ImageSet(self._dataset, [self._indices[i] for i in drawn.tolist()])

    def decoded(self, i: int) -> tuple[Any, int]:
        """Returns an RGB image of PIL and its label.

        Raises:
            UserError: it can't be read.
        """
        try:
            image, label = self._dataset[self._indices[i]]
            return _as_rgb(image), int(label)
        except Exception as error:  # PIL raises many kinds for a broken file
            raise UserError(
                f"{self._name(i)} can't be read: {first_line(error)}; put a good copy in its place, or remove it"
            ) from error

    def sha256(self) -> str:
        """Returns a digest of the names of the files (not of what is in them) and of their labels."""
        digest = sha256()
        for i in self._indices:
            path, label = self._files[i] if self._files is not None else (str(i), self._dataset.targets[i])
            name = Path(path).name
            digest.update(f"{name} {label}\n".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def _name(self, i: int) -> str:
        index = self._indices[i]
        return f"image {self._files[index][0] if self._files is not None else index}"


def load_images(source: str, *, image_size: int, train_limit: int = 0, validation_limit: int = 0) -> Images:
    """Load a data set, or an evenly drawn part of it, scaled to `image_size`.

    Args:
        source: ``digits``, or what `image_sets` takes.
        image_size: height and width in pixels.
        train_limit, validation_limit: at most so many images are used, drawn with a fixed seed; all if 0.

    Raises:
        UserError: a path that does not exist or holds no images, an image that can't be read, a data set that
            can't be had or does not fit into memory.
    """
    if source == DIGITS:
        return _digits(image_size, train_limit, validation_limit)
    whole, validation = image_sets(source)
    train = whole.limited(train_limit)
    return Images(
        *_in_memory(train, image_size), *_in_memory(validation.limited(validation_limit), image_size), len(whole.classes),
        flip=True, train_available=len(whole),
    )  # fmt: skip


def image_sets(source: str) -> tuple[ImageSet, ImageSet]:
    """Returns training and validation images.

    Args:
        source: ``cifar10``, ``cifar100`` or ``imagenet`` through torchvision, from the folder that the
            variable ``REVBENCH_DATA_ROOT`` names (the CIFAR sets are downloaded there if absent); or the path
            of an image folder, one subfolder a class, with or without ``train`` and ``test`` (or ``val``)
            above them. Without, a fifth is held out for validation.

    Raises:
        UserError: a path that does not exist or holds no images, a data set that can't be had.
    """
    if source in TORCHVISION:
        return _torchvision(source)
    path = Path(source)
    if not path.is_dir():
        raise UserError(f"data path {source!r} is not a folder")
    roots = split_folders(path)
    if len(roots) == 2:
        train, validation = (_image_folder(root) for root in roots)
        if set(validation.classes) - set(train.classes):
            strange = sorted(set(validation.classes) - set(train.classes))[0]
            raise UserError(f"data path {source!r}: only the validation images have a class {strange!r}")
        numbers = [train.class_to_idx[name] for name in validation.classes]
        validation.target_transform = numbers.__getitem__  # a class means the same in both
        return ImageSet(train), ImageSet(validation)
    whole = _image_folder(path)
    held_out, kept = _held_out(len(whole))
    return ImageSet(whole, kept.tolist()), ImageSet(whole, held_out.tolist())


def _digits(size: int, train_limit: int, validation_limit: int) -> Images:
    """Handwritten digits of the UCI repository (Alpaydin & Kaynak 1998), 8x8, enlarged; a fifth for validation."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) * (255.0 / 16.0)
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    images = images.round().clamp(0, 255).byte().expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(digits.target).long()
    held_out, kept = _held_out(len(labels))
    train, validation = kept[: train_limit or None], held_out[: validation_limit or None]
    return Images(
        images[train], labels[train], images[validation], labels[validation], 10, flip=False, train_available=len(kept)
    )


def _held_out(count: int) -> tuple[Tensor, Tensor]:
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[: count // HELD_OUT], order[count // HELD_OUT :]


def _image_folder(path: Path) -> Any:
    try:
        return VisibleImageFolder(path)
    except FileNotFoundError as error:
        raise UserError(
            f"data path {str(path)!r} holds no images in one subfolder a class: {first_line(error)}"
        ) from error


def _as_rgb(image: Any) -> Any:
    """Returns a PIL image in RGB of 8 bits a channel; grey ones of 16 bits are scaled.

    Raises:
        ValueError: numbers whose range nobody knows.
    """
    if image.mode.startswith("I;16"):
        from PIL import Image

        grey = np.asarray(image).astype(np.float64) * (255.0 / 65535.0)
        image = Image.fromarray(grey.round().astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "32-bit integers" if image.mode == "I" else "floating-point numbers"
        raise ValueError(f"its pixels are {kind}, of which nobody knows the range; save it with 8 or 16 bits a channel")
    return image.convert("RGB")


def _torchvision(name: str) -> tuple[ImageSet, ImageSet]:
    from torchvision import datasets

    root = _data_root()

    def opened(*, fetch: bool) -> tuple[ImageSet, ImageSet]:
        if name == "imagenet":
            if not fetch and not all((root / split).is_dir() for split in ("train", "val")):
                raise FileNotFoundError(
                    "the folder of a split is missing"
                )  # torchvision would unpack it, in each process
            splits = [datasets.ImageNet(str(root), split=split, loader=open_image) for split in ("train", "val")]
        else:
            kind = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
            splits = [kind(str(root), train=train, download=fetch) for train in (True, False)]
        return ImageSet(splits[0]), ImageSet(splits[1])

    try:
        root.mkdir(parents=True, exist_ok=True)
        return fetched_once(root, name, opened)
    except Exception as error:  # torchvision and urllib raise many kinds
        raise UserError(
            f"data set {name!r} can't be had in {root}: {first_line(error)}; put it there by hand, or give a folder"
        ) from error


def _data_root() -> Path:
    if (named := os.environ.get("REVBENCH_DATA_ROOT")) is not None:
        return Path(named)
    try:
        return Path.home() / ".cache" / "revbench"
    except RuntimeError as error:
        raise UserError("this user has no home folder; set REVBENCH_DATA_ROOT to the folder of data sets") from error


def _in_memory(images: ImageSet, size: int) -> tuple[Tensor, Tensor]:
    import psutil
    from torchvision.transforms import functional

    wanted, there = len(images) * 3 * size * size, psutil.virtual_memory().available
    if wanted > there // 2:
        raise UserError(
            f"{len(images):,} images of {size}×{size} take {wanted / 2**30:.1f} GiB, more than half of the free memory;"
            " use fewer of them (--images), or the recipe that reads them one by one (--recipe imagenet)"
        )
    pixels = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(images), dtype=torch.int64)
    for i in range(len(images)):
        image, labels[i] = images.decoded(i)
        if image.size != (size, size):  # as torchvision's evaluation: the short side to size, then the middle
            image = functional.center_crop(functional.resize(image, size), [size, size])
        pixels[i] = functional.pil_to_tensor(image)
    return pixels, labels
