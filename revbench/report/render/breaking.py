"""Where a long word may go on in the next line."""

from __future__ import annotations

import re

BREAK = "\u200b"  # a space of no width, where a line may end


def breakable(cell: str, shortest: int) -> str:
    """Returns a cell whose words of ``shortest`` letters or more, ids and names of tensors above all, may end a line after a
    mark: `BREAK` stands behind each ``, : = ( / _`` and full stop of them."""
    return re.sub(rf"\S{{{shortest},}}", lambda word: re.sub(r"([,:=(/_.])", rf"\1{BREAK}", word[0]), cell)
