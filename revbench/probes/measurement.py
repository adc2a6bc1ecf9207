"""What a probe hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = float | int | str | None
Progress = Callable[[Mapping[str, Any]], None]


MOST_LETTERS = 10_000  # of a word in a row
LARGEST = 1e150  # of a value in a row: what is beyond has no square, and was never measured


def finite_or_null(value: Value) -> Value:
    """Returns the value, or None where it is NaN, infinite, beyond `LARGEST` or an integer beyond 2**62."""
    if isinstance(value, float):
        return value if is_finite(value) else None
    return None if isinstance(value, int) and abs(value) > 2**62 else value


def is_finite(value: float) -> bool:
    """Tells whether a row can hold a number."""
    return -LARGEST <= value <= LARGEST


@dataclass(frozen=True)
class Measurement:
    """The frozen record of one pass of one probe.

    Attributes:
        metrics: values by name, with units in the names; None where a value could not be had, with the
            reason under the same name and ``_reason``.
        samples: every sample that a value summarises, by the value's name.
        series: long columns, of one length each, kept in a file of their own beside the rows.
    """

    metrics: Mapping[str, Value]
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    series: Mapping[str, Sequence[Value]] = field(default_factory=dict)
