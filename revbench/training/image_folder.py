"""torchvision's image folder, in which nothing hidden counts and images keep their depth."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.datasets import ImageFolder

from revbench.training.sources import class_folders, is_image


class VisibleImageFolder(ImageFolder):  # type: ignore[misc]
    """Images of PIL as they are in their files, one subfolder a class; hidden folders and files are left out.

    Args:
        root: the folder.

    Raises:
        FileNotFoundError: a class without images, or none.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), loader=_open, is_valid_file=functools.partial(_counts, root=root))

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Names of the classes, and their numbers."""
        names = [folder.name for folder in class_folders(Path(directory))]
        if not names:
            raise FileNotFoundError(f"{directory} has no subfolder")
        return names, {name: number for number, name in enumerate(names)}


def _counts(file: str, *, root: Path) -> bool:
    return is_image(Path(file), root)


def _open(path: str) -> Any:
    """Not by torchvision's loader, which cuts what has more than 8 bits a channel."""
    with Image.open(path) as image:
        image.load()
        return image
