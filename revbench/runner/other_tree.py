"""Another version of the code: a tree from which a worker server imports what its parent imports from its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OtherTree:
    """Where code lies, and where its other version lies.

    Attributes:
        root: the folder of the parent's version; None if there is no other one.
        other: the same folder in the other version.
    """

    root: Path | None = None
    other: Path | None = None

    def moved(self, path: str) -> str:
        """Returns the same place in the other version, of a path that lies in the first."""
        if self.root is None or self.other is None:
            return path
        real = os.path.realpath(path)
        inside = os.path.relpath(real, self.root)
        # An environment that was made inside of the tree stays where it is: no version of the code has it.
        if inside.split(os.sep)[0] == os.pardir or not os.path.exists(moved := os.path.normpath(self.other / inside)):
            return path
        return moved

    def current_folder(self) -> str | None:
        """Returns the current folder in the other version; None, which stands for the parent's, if there is no other."""
        return None if self.root is None else self.moved(os.getcwd())
