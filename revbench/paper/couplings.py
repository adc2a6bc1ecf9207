"""How a coupling is named: by a word, and what belongs to it after a colon (``momentum:0.9``); no torch is imported here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from revbench.choices import AFFINE_SCALES, COUPLINGS, CouplingName
from revbench.errors import UserError, unknown

# What a coupling is given if its name says no more; `affine` has a word, `additive` nothing.
_DEFAULTS: Mapping[str, float] = {"hamiltonian": 1.0, "momentum": 0.9, "midpoint": 0.5, "leapfrog": 1.0}
KEEP_FIRST = ("momentum", "midpoint", "leapfrog")  # what their first function is given, unless told otherwise
FORGET = "forget"


@dataclass(frozen=True)
class NamedCoupling:
    """A coupling by its name, which as a string always has its number, so that it stays what it is if a default changes.

    Attributes:
        name: one of `revbench.choices.COUPLINGS`.
        number: its step, of ``momentum`` the share of the velocity that is kept; 0 of those that have none.
        scale: of ``affine``; else empty.
        forgets: whether one of `KEEP_FIRST` does not keep it.
    """

    name: CouplingName
    number: float = 0.0
    scale: str = ""
    forgets: bool = False

    def __str__(self) -> str:
        if self.name == "affine":
            return f"{self.name}:{self.scale}"
        if self.name not in _DEFAULTS:
            return self.name
        short = f"{self.number:g}"
        number = short if float(short) == self.number else repr(self.number)
        return f"{self.name}:{number}{f':{FORGET}' if self.forgets else ''}"


def parse_coupling(text: str) -> NamedCoupling:
    """Returns the coupling of a name: ``additive``, ``affine:sigmoid``, ``hamiltonian:0.5``, ``momentum:0.9``, ``midpoint``, or
    ``midpoint:0.5:forget``, which does not keep what its first function is given.

    Raises:
        UserError: an unknown name, or a number that it can't have.
    """
    word, colon, given = text.partition(":")
    name = next((known for known in COUPLINGS if known == word), None)
    if name is None:
        raise unknown("coupling", word, COUPLINGS)
    if name == "affine":
        scale = given if colon else AFFINE_SCALES[0]
        if scale not in AFFINE_SCALES:
            raise unknown("scale of an affine coupling", scale, AFFINE_SCALES)
        return NamedCoupling(name, scale=scale)
    if name not in _DEFAULTS:
        if colon:
            raise UserError(f"coupling={text!r}: {name} has nothing to be given; omit what follows the colon")
        return NamedCoupling(name)
    given, more, rest = given.partition(":")
    if more and (rest != FORGET or name not in KEEP_FIRST):
        raise UserError(
            f"coupling={text!r}: behind a number may stand :{FORGET}, of {', '.join(KEEP_FIRST)}, like midpoint:0.5:{FORGET}"
        )
    try:
        number = float(given) if colon else _DEFAULTS[name]
    except ValueError:
        raise _wrong_number(name, given) from None
    check_number(name, number)
    return NamedCoupling(name, number, forgets=bool(more))


def check_number(name: str, number: float) -> None:
    """Raise a `UserError` unless a coupling can have this number."""
    most = 1.0 if name == "momentum" else math.inf
    if not 0 < number < most:
        raise _wrong_number(name, f"{number:g}")


def _wrong_number(name: str, given: str) -> UserError:
    within = "between 0 and 1" if name == "momentum" else "above 0"
    return UserError(f"coupling={name}:{given}: its number must be {within}, like {name}:{_DEFAULTS[name]:g}")
