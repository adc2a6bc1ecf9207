"""Units of metrics, and numbers as a person reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from revbench.errors import UserError

_FACTORS = {
    "B": 1,
    **{f"{p}iB": 1024**i for i, p in enumerate("KMGT", 1)},
    **{f"{p}B": 1000**i for i, p in enumerate("KMGT", 1)},
}


def human_bytes(value: float) -> str:
    """Returns bytes in the largest binary unit that leaves at least 1: ``36.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def parse_bytes(text: str) -> int:
    """Returns bytes of a size as a person writes it: ``24GiB``, ``500 MB``, ``1.5TiB``, ``1073741824B``.

    Raises:
        UserError: another form, a number without its unit, or nothing.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    factors = {unit.lower(): factor for unit, factor in _FACTORS.items()}
    if found is None or found[2].lower() not in factors:
        raise UserError(f"{text!r} is no size in bytes; give one as 24GiB or 500MB")
    value = int(Decimal(found[1]) * factors[found[2].lower()])
    if not 1 <= value < 2**63:
        amount = "no memory at all" if value < 1 else "more memory than there is"
        raise UserError(f"{text[:40]!r} is {amount}; give a size as 24GiB or 500MB")
    return value


def human_seconds(value: float) -> str:
    """Returns seconds in s, ms or µs with three digits: ``133 ms``."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if abs(value) * factor >= 1:
            return f"{_three_digits(value * factor)} {unit}"
    return f"{_three_digits(value * 1e6)} µs"


def without_same_unit(one: str, other: str) -> str:
    """Returns a number as a person reads it before another: its unit only where it is not the other's."""
    value, _, unit = one.partition(" ")
    return value if unit and other.endswith(f" {unit}") else one


def human_flops(value: float) -> str:
    """Returns floating-point operations in GFLOP or TFLOP with three digits."""
    return f"{_three_digits(value / 1e12)} TFLOP" if value >= 1e12 else f"{_three_digits(value / 1e9)} GFLOP"


def human_count(value: float) -> str:
    """Returns a mean of counts: whole where it is large, ``none`` where it is less than one in a hundred."""
    if value < 0.005:
        return "none"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def human_rate(value: float) -> str:
    """Returns how many a second, whole where they are many, else with three digits: ``60,880``, ``1.34``."""
    if 0 < abs(value) < 1e-2:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 99.95 else _three_digits(value)


def human_share(value: float) -> str:
    """Returns a share in per cent with three digits, small ones as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return "nothing" if value == 0 else "not defined"
    return f"{100 * value:.3g} %" if value >= 1e-3 else f"{value:.1e}"


def human_degrees(value: float) -> str:
    """Returns degrees with three digits; small ones in scientific notation."""
    if math.isnan(value):
        return "not defined"
    if value == 0:
        return "0°"
    return f"{_three_digits(value)}°" if value >= 1e-3 else f"{value:.1e}°"


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


@dataclass(frozen=True)
class Unit:
    """What a number counts.

    Attributes:
        name: in the plural, for a sentence; empty of a number without a unit.
        show: a finite number of this unit as a person reads it.
    """

    name: str
    show: Callable[[float], str]


BYTES = Unit("bytes", human_bytes)
SECONDS = Unit("seconds", human_seconds)
FLOPS = Unit("floating-point operations", human_flops)
DEGREES = Unit("degrees", human_degrees)
SHARE = Unit("", human_share)  # of a whole; small ones as powers of ten
PERCENT = Unit("%", lambda value: f"{value:.1%}")  # of a whole
CHANGE = Unit("%", lambda value: f"{value:+.1%}")  # with its sign
COUNT = Unit("", lambda value: f"{value:,.0f}")
RATE = Unit("", human_rate)  # a second, of seconds, or of steps
RATIO = Unit("", lambda value: f"{value:.3g}")
FACTOR = Unit("", lambda value: f"{value:.1f}")
NATS = Unit("nats", lambda value: f"{value:.3f}")
JOULES = Unit("joules", lambda value: f"{value:.2f} J")
WATTS = Unit("watts", lambda value: f"{value:.0f} W")
MEGAHERTZ = Unit("MHz", lambda value: f"{value:,.0f} MHz")
CELSIUS = Unit("degrees Celsius", lambda value: f"{value:.0f} °C")
EPSILONS = Unit("epsilons of the arithmetic", lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}")
ULPS = Unit("units in the last place", EPSILONS.show)
WORDS = Unit("", str)  # the metric is a word or a sentence
