"""Tables are made of columns: each knows its head and how it makes a cell of a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from revbench.case import Case
from revbench.compare.ratios import Ratio
from revbench.probes import Metric
from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence
from revbench.units import without_same_unit

Line = TypeVar("Line")
Show = Callable[[float], str]


@dataclass(frozen=True)
class Column(Generic[Line]):
    """One column.

    Attributes:
        head: what stands above it.
        cell: makes the cell of a line.
        is_number: numbers are aligned right; they stand after all words.
    """

    head: str
    cell: Callable[[Line], str]
    is_number: bool = True


def words(head: str, cell: Callable[[Line], str]) -> Column[Line]:
    """Returns a column of words."""
    return Column(head, cell, is_number=False)


def with_something(columns: Sequence[Column[Line]], lines: Iterable[Line]) -> list[Column[Line]]:
    """Returns the columns that have something for one of some lines."""
    there = list(lines)
    return [column for column in columns if any(column.cell(line) != MISSING for line in there)]


def lay_out(
    title: str, columns: Sequence[Column[Line]], groups: Iterable[Sequence[Line]], notes: Sequence[str] = (), *, name: str = ""
) -> Table | None:  # fmt: skip
    """Returns a table with a rule between its groups; None if there is no line.

    Args:
        title: what it shows.
        columns: words first, then numbers.
        groups: of lines.
        notes: below the table.
        name: of the table, see `Table`.
    """
    rows: list[list[str]] = []
    breaks: list[int] = []
    for group in groups:
        if group and rows:
            breaks.append(len(rows))
        rows += [[column.cell(line) for column in columns] for line in group]
    if not rows:
        return None
    first_number = sum(not column.is_number for column in columns)
    assert all(column.is_number for column in columns[first_number:])
    return Table(title, tuple(column.head for column in columns), rows, first_number, notes, breaks, name)


def value_cell(
    evidence: Evidence, case: Case, metric: Metric, show: Show | None = None, *, spread: bool = False
) -> str:
    """Returns a metric of a case as a person reads it; with its spread over launches if asked for."""
    found = evidence.value(case, metric)
    if found is None:
        return MISSING
    median, low, high = map(show or metric.unit.show, (found.median, found.low, found.high))
    return f"{median} ({without_same_unit(low, high)} to {high})" if spread and found.launches > 1 else median


def value_column(evidence: Evidence, metric: Metric, head: str | None = None) -> Column[Case]:
    """Returns a column of a metric."""
    return Column(metric.title if head is None else head, lambda case: value_cell(evidence, case, metric))


def tokens(case: Case) -> str:
    """Returns what stands behind a number of items that are no images."""
    return " tokens" if case.item == "token" else ""


def times(ratio: float | None) -> str:
    """Returns a ratio as a person reads it."""
    return MISSING if ratio is None else f"{ratio:.2f} ×"


def with_interval(ratio: Ratio | None, of: str = "") -> str:
    """Returns a ratio of times with its interval, and of what it is; one that bears no sentence says so."""
    if ratio is None:
        return MISSING
    return f"{ratio}{of}{', unstable' if ratio.unstable else ''}"


def why_unstable(ratios: Iterable[tuple[str, Ratio | None]]) -> list[str]:
    """Returns a note, if there is one, of why ratios bear no sentence: each reason with the names of those that it is of."""
    found: dict[str, list[str]] = {}
    for name, ratio in ratios:
        if ratio is not None and ratio.unstable:
            found.setdefault(ratio.unstable, []).append(name)
    said = "; ".join(f"{', '.join(dict.fromkeys(names))}: {why}" for why, names in found.items())
    return [f"Unstable: {said}."] if said else []
