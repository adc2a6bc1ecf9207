"""A line for each part of a network, a block or a parameter tensor: the columns of a series, asked by level and name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Columns = dict[str, list[Any]]

# Of the table that a measurement of drift gives; the first are medians over draws.
MEDIANS = (
    "relative_error", "stored_relative_error", "smooth_relative_error", "smooth_stored_relative_error", "flips", "stored_flips",
)  # fmt: skip
DRIFT_COLUMNS = (
    "level", "name", *MEDIANS, "activation_error", "activation_error_low", "activation_error_high",
    "activation_largest_error", "activation_log_mean", "activation_log_deviation",
)  # fmt: skip


class PartTable:
    """Columns of one length, among them ``level`` (``block`` or ``tensor``) and ``name``.

    Args:
        columns: as a series has them; none of them need be there.
    """

    def __init__(self, columns: Mapping[str, Sequence[Any]]) -> None:
        self._columns = columns

    @classmethod
    def of_lines(cls, names: Sequence[str], lines: Iterable[Sequence[Any]]) -> PartTable:
        """Returns a table of lines, each with a value for every name."""
        found = list(lines)
        return cls({name: [line[i] for line in found] for i, name in enumerate(names)})

    @classmethod
    def joined(cls, tables: Sequence[PartTable], names: Sequence[str]) -> PartTable:
        """Returns the lines of several, with these columns; a table that lacks one of them, or has words in it, is passed
        over."""
        whole = [table for table in tables if table._has_numbers(names)]
        return cls({name: [v for table in whole for v in table._columns[name]] for name in ("level", "name", *names)})

    @property
    def columns(self) -> Columns:
        """The columns, as a series has them."""
        return {name: list(column) for name, column in self._columns.items()}

    def lines(self, level: str, *names: str) -> list[tuple[Any, ...]]:
        """Returns name and values of each part of a level, in the network's order; nothing if a column is not there."""
        if not {"level", "name", *names} <= self._columns.keys():
            return []
        columns = (self._columns[name] for name in ("level", "name", *names))
        return [line[1:] for line in zip(*columns, strict=True) if line[0] == level]

    def blocks(self, *names: str) -> list[tuple[Any, ...]]:
        """Returns name and values of each block."""
        return self.lines("block", *names)

    def numbers_of_blocks(self, name: str) -> list[float]:
        """Returns one column, a number for each block: NaN where there is none, or where the table has no such column."""
        found = dict(self.blocks(name))
        return [math.nan if (value := found.get(block)) is None else value for (block,) in self.blocks()]

    def _has_numbers(self, names: Sequence[str]) -> bool:
        return {"level", "name", *names} <= self._columns.keys() and all(
            value is None or isinstance(value, (int, float)) for name in names for value in self._columns[name]
        )
