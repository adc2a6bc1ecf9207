"""What a field of a case may be: the bound stands at the field, and says in one line what is wrong with a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from revbench.errors import UserError, unknown
from revbench.paper.couplings import parse_coupling

_LARGEST = 2**63  # beyond which no machine has a number of anything


class Bound(Protocol):
    """What values are possible."""

    def check(self, name: str, value: Any) -> None:
        """Raise a `UserError` that begins with the name unless the value is possible."""


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: Sequence[str]

    def check(self, name: str, value: Any) -> None:
        """Suggests the nearest word."""
        if not isinstance(value, str) or value not in self.words:
            raise unknown(name, value, self.words)


@dataclass(frozen=True)
class Text:
    """A printable word of at most so many letters; of a certain form, if one is given.

    Attributes:
        most_letters: of it.
        pattern: a regular expression that all of it must match.
        forms: what a message names as possible, if there is a pattern.
    """

    most_letters: int
    pattern: str = ""
    forms: Sequence[str] = ()

    def check(self, name: str, value: Any) -> None:
        """Refuses other types, too."""
        if not isinstance(value, str):
            raise UserError(f"{name}={value!r} must be a word")
        if len(value) > self.most_letters:
            raise UserError(f"{name}={value[:40]!r}… is longer than {self.most_letters} letters")
        if not value.isprintable():
            raise UserError(f"{name}={value!r} holds unprintable characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise unknown(name, value, self.forms)


@dataclass(frozen=True)
class CouplingName:
    """A coupling as `revbench.paper.couplings` writes it, so that one coupling has one name."""

    def check(self, name: str, value: Any) -> None:
        """Refuses other ways to write its number, too."""
        if not isinstance(value, str):
            raise UserError(f"{name}={value!r} must be a word")
        written = str(parse_coupling(value))
        if written != value:
            raise UserError(f"{name}={value!r} is written {written}")


@dataclass(frozen=True)
class Integer:
    """An integer of at least so much; None, too, if it is `optional`."""

    least: int
    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuses truth values, too."""
        if value is None and self.optional:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < self.least:
            raise UserError(f"{name}={str(value)[:60]!s} must be an integer of at least {self.least}")
        if value >= _LARGEST:
            raise UserError(f"{name} can't be so large a number")


@dataclass(frozen=True)
class Number:
    """A finite number of at least so much."""

    least: float

    def check(self, name: str, value: Any) -> None:
        """Refuses NaN and infinity, too."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not self.least <= value < _LARGEST:
            raise UserError(f"{name}={str(value)[:60]!s} must be a number of at least {self.least:g}")


@dataclass(frozen=True)
class Flag:
    """True or False."""

    def check(self, name: str, value: Any) -> None:
        """Refuses numbers."""
        if not isinstance(value, bool):
            raise UserError(f"{name}={str(value)[:60]!r} must be true or false")
