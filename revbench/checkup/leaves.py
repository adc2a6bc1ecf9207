"""Where in a network the reversible blocks are, by what backward is seen to call again."""

from __future__ import annotations

import itertools
from typing import NamedTuple


class Leaves(NamedTuple):
    """Names of modules.

    Attributes:
        all: those without children that are called in forward and return one tensor.
        inside: those of them that backward calls again: they are inside the blocks.
        called: all modules that are called where there is a graph, the innermost first; those inside the blocks are not.
    """

    all: list[str]
    inside: list[str]
    called: list[str]

    def middle(self) -> str | None:
        """Returns one inside the blocks, or in the middle of the network if it is not known where those are."""
        names = self.inside or self.all
        return names[len(names) // 2] if names else None

    def ends(self) -> tuple[str, str]:
        """Returns the modules that the blocks begin and end with: one and the same where a module that is called holds them all.

        The network itself, an empty name, if it is not known where the blocks are.
        """
        parts = [name.split(".") for name in self.inside]
        alike = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
        common = [level[0] for level in alike]
        holders = [".".join(common[:i]) for i in range(len(common), 0, -1)]
        holder = next((name for name in holders if name in self.called and name not in self.inside), None)
        if holder is not None:
            return holder, holder
        children = dict.fromkeys(".".join(part[: len(common) + 1]) for part in parts)
        called = [name for name in children if name in self.called and name not in self.inside]
        return (called[0], called[-1]) if called else ("", "")
