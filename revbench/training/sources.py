"""The names of data sets, and what is wrong with a path to one; no torch is imported here."""

from __future__ import annotations

from pathlib import Path

from revbench.errors import UserError

DIGITS = "digits"
TORCHVISION = ("cifar10", "cifar100", "imagenet")
TRAIN_FOLDERS, VALIDATION_FOLDERS = ("train", "training"), ("val", "valid", "validation", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's


def split_data_option(option: str) -> tuple[str, str]:
    """The label and the source of ``--revbench-data``: ``digits``, ``cifar10``, ``PATH`` or ``LABEL=PATH``.

    Returns:
        What figures call the data, and what `load_images` takes. The label of a path is its last part.

    Raises:
        UserError: a path that does not exist or holds no images.
    """
    label, equals, source = option.rpartition("=")
    if option in (DIGITS, *TORCHVISION):
        return option, option
    if not equals or Path(option).exists():
        label, source = "", option
    path = Path(source).expanduser()
    if not path.is_dir():
        raise UserError(
            f"--revbench-data: {source!r} is not a folder; give a folder of images, one subfolder a class,"
            f" or one of {', '.join((DIGITS, *TORCHVISION))}"
        )
    check_images(path)
    return label or path.resolve().name, str(path.resolve())


def check_images(folder: Path) -> None:
    """Raise a `UserError` unless the folder holds images, one subfolder a class, with or without a split above."""
    train = [folder / name for name in TRAIN_FOLDERS if (folder / name).is_dir()]
    validation = [folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()]
    for root in [train[0], validation[0]] if train and validation else [folder]:
        classes = [c for c in root.iterdir() if c.is_dir()]
        if not any(f.suffix.lower() in IMAGE_SUFFIXES for c in classes for f in c.rglob("*")):
            raise UserError(
                f"--revbench-data: {str(root)!r} holds no images; it needs a subfolder of images for each class"
            )
