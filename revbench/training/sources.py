"""The names of data sets, and what is wrong with a path to one; no torch is imported here."""

from __future__ import annotations

import os
from pathlib import Path

from revbench.errors import UserError

DIGITS = "digits"
FACTORY = "factory"  # what the factory's own make_batch draws
TEXT = "python-docs"  # the text that comes with every Python
TORCHVISION = ("cifar10", "cifar100", "imagenet")
CLASSES = {DIGITS: 10, "cifar10": 10, "cifar100": 100, "imagenet": 1000}
TRAINING_IMAGES = {DIGITS: 1_438, "cifar10": 50_000, "cifar100": 50_000, "imagenet": 1_281_167}
HELD_OUT_BATCHES = 5  # that are drawn to validate, of what a factory draws
HELD_OUT = 5  # one image in so many is held out where a folder has no split
TRAIN_FOLDERS, VALIDATION_FOLDERS = ("train", "training"), ("val", "valid", "validation", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's


def is_text(source: str) -> bool:
    """Tells whether what `split_data_option` returned as a source is a text, and no images."""
    return source == TEXT or (source not in (*CLASSES, FACTORY) and Path(source).is_file())


def check_data(model: str, item: str, source: str, recipe: str) -> None:
    """See that a network can be trained on some data by a recipe.

    Args:
        model, item: of a case.
        source: see `split_data_option`.
        recipe: a key of `revbench.paper.recipes.RECIPES`.

    Raises:
        UserError: it can't.
    """
    of_text = item == "token"
    if source == FACTORY:
        if item != "item":
            raise UserError(
                f"data: {model} is of the catalogue, and factory is what a factory of yours draws; name other data"
            )
        return
    if of_text and not is_text(source):
        raise UserError(f"data: {model} is trained on a text; give --data {TEXT}, or the path of a file")
    if not of_text and is_text(source):
        own = f", or --data {FACTORY} for what its make_batch draws" if item == "item" else ""
        raise UserError(f"data: {model} is trained on images, not on a text; give a folder of images{own}")
    if of_text != (recipe == "text"):
        raise UserError(
            f"recipe {recipe} is of {'images' if of_text else 'texts'}, and {model} is trained on {item}s; omit --recipe"
        )


def split_data_option(option: str) -> tuple[str, str]:
    """Returns the label and the source of ``--data`` and ``--revbench-data``: ``digits``, ``cifar10``, ``python-docs``,
    ``factory``, ``PATH`` (of a folder of images, or of a text) or ``LABEL=PATH``.

    Returns:
        What figures call the data, and what `load_images` takes. The label of a path is its last part.

    Raises:
        UserError: a path that does not exist or holds no images.
    """
    label, equals, source = option.rpartition("=")
    if not option.isprintable():
        raise UserError(f"data: {option!r} holds unprintable characters; give the folder a label: LABEL=PATH")
    if option in (*CLASSES, TEXT, FACTORY):
        return option, option
    if not equals or Path(option).exists():
        label, source = "", option
    path = Path(os.path.expanduser(source))  # which leaves a home folder that is not known as it is
    if not path.is_dir() and not path.is_file():
        raise UserError(
            f"data: {source!r} is neither a folder nor a file; give a folder of images, one subfolder a class, a text,"
            f" or one of {', '.join((DIGITS, *TORCHVISION, TEXT))}"
        )
    if path.is_dir():
        check_images(path)
    label = label or path.resolve().name
    if label in (*CLASSES, TEXT, FACTORY, "normal"):
        raise UserError(f"data: the label {label!r} means something else; give another: LABEL={source}")
    return label, str(path.resolve())


def count_classes(source: str) -> int:
    """Returns the number of classes of what `split_data_option` returned as a source."""
    if source in CLASSES:
        return CLASSES[source]
    return len(class_folders(split_folders(Path(source))[0]))


def count_training_images(source: str) -> int:
    """Returns how many images the training set of what `split_data_option` returned as a source holds."""
    if source in TRAINING_IMAGES:
        return TRAINING_IMAGES[source]
    roots = split_folders(Path(source))
    count = sum(map(_count_images, class_folders(roots[0])))
    return count if len(roots) == 2 else count - count // HELD_OUT


def _count_images(folder: Path) -> int:
    """Counts what `is_image` finds, also behind links to folders.

    Raises:
        UserError: a link leads back to a folder that it is in, so that there is no end.
    """
    count = 0
    ancestors = {str(folder): {_identity(folder)}}
    for where, folders, files in os.walk(folder, followlinks=True):
        count += sum(is_image(Path(where, name), folder) for name in files)
        above = ancestors.pop(where)
        for name in folders:
            path = os.path.join(where, name)
            if (own := _identity(path)) in above:
                raise UserError(f"data: {path!r} leads back, by a link, to a folder that it is in; remove the link")
            ancestors[path] = above | {own}
    return count


def _identity(folder: str | Path) -> tuple[int, int]:
    """Returns the same for every name of a folder; a link that leads nowhere is itself."""
    try:
        found = os.stat(folder)
    except OSError:
        found = os.lstat(folder)
    return found.st_dev, found.st_ino


def is_image(path: Path, root: Path) -> bool:
    """Tells whether a file below a folder counts: by its suffix, and nothing hidden (``.ipynb_checkpoints``, ``._copy.png``)."""
    parts = path.relative_to(root).parts
    return path.name.lower().endswith(IMAGE_SUFFIXES) and not any(part.startswith(".") for part in parts)


def class_folders(root: Path) -> list[Path]:
    """Returns the subfolders that are classes, in the order of their labels: all but hidden ones."""
    return sorted(child for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))


def check_images(folder: Path) -> None:
    """Raise a `UserError` unless the folder holds images, one subfolder a class, with or without a split above."""
    roots = split_folders(folder)
    for root in roots:
        classes = class_folders(root)
        counts = [_count_images(c) for c in classes]
        if not sum(counts):
            raise UserError(f"data: {str(root)!r} holds no images; it needs a subfolder of images for each class")
        if 0 in counts:
            raise UserError(f"data: the class {str(classes[counts.index(0)])!r} holds no images; remove it")
        if len(roots) == 1 and sum(counts) < HELD_OUT:
            raise UserError(f"data: {str(root)!r} holds {sum(counts)} images; at least {HELD_OUT} are needed")


def split_folders(folder: Path) -> list[Path]:
    """Returns the folders for training and validation, or the one folder that is both."""
    train = [folder / name for name in TRAIN_FOLDERS if (folder / name).is_dir()]
    validation = [folder / name for name in VALIDATION_FOLDERS if (folder / name).is_dir()]
    return [train[0], validation[0]] if train and validation else [folder]
