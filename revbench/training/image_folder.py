"""torchvision's image folder, in which nothing hidden counts, images keep their depth, and what is no image stays shut."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from torchvision.datasets import ImageFolder

from revbench.results.files import open_regular
from revbench.training.sources import class_folders, is_image

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # those of `revbench.training.sources.IMAGE_SUFFIXES`
MOST_PIXELS = 89_478_485  # of 3 bytes each; where PIL itself begins to warn of bombs
_MOST_BYTES = 1 << 30


class VisibleImageFolder(ImageFolder):  # type: ignore[misc]
    """Images of PIL as they are in their files, one subfolder a class; hidden folders and files are left out.

    Args:
        root: the folder.

    Raises:
        FileNotFoundError: a class without images, or none.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), loader=open_image, is_valid_file=functools.partial(_counts, root=root))

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Returns the names of the classes, and their numbers."""
        names = [folder.name for folder in class_folders(Path(directory))]
        if not names:
            raise FileNotFoundError(f"{directory} has no subfolder")
        return names, {name: number for number, name in enumerate(names)}


def _counts(file: str, *, root: Path) -> bool:
    return is_image(Path(file), root)


def open_image(path: str) -> Any:
    """Returns the image of PIL in a file.

    Not by torchvision's loader, which cuts what has more than 8 bits a channel and opens whatever PIL knows: PostScript, say,
    by running Ghostscript.

    Raises:
        UserError: it is no regular file.
        ValueError: it is none of `FORMATS`, or has more pixels than a photograph.
        OSError: it is broken.
    """
    descriptor = open_regular(Path(path), most_bytes=_MOST_BYTES, follow=True)
    with os.fdopen(descriptor, "rb") as file:
        try:
            image = Image.open(file, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise ValueError(f"it is none of {', '.join(FORMATS)}, whatever its name says") from error
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width}×{height} pixels are more than {MOST_PIXELS:,}")
        image.load()
        return image
