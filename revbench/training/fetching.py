"""Data sets that are downloaded or unpacked by one of several processes while the others wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

T = TypeVar("T")


def fetched_once(root: Path, name: str, opened: Callable[..., T]) -> T:
    """Returns a data set that one of all processes fetches and unpacks, and that each then opens without waiting for another.

    Args:
        root: of the data sets; where nothing can be written the set must be there already.
        name: of the set; a file of this name says that it is whole.
        opened: opens it, called with ``fetch``: whether what is missing may be downloaded.
    """
    if not os.access(root, os.W_OK):
        return opened(fetch=False)
    whole = root / f".{name}.whole"
    if whole.exists():
        try:
            return opened(fetch=False)
        except Exception:  # somebody removed it
            whole.unlink(missing_ok=True)
    with FileLock(root / f".{name}.lock"):
        if not whole.exists():
            found = opened(fetch=True)
            whole.touch()
            return found
    return opened(fetch=False)
