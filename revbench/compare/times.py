"""Times of two runs: the launch is the unit, many comparisons are corrected for, and a change must exceed the runs' own noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from revbench.results.schema import Row

LEAST_LAUNCHES = 5  # a side
MOST_LAUNCHES = 1000  # that anybody would be asked for
SIGNIFICANCE = 1e-3  # of one comparison, two-sided
FALSE_DISCOVERIES = 0.01  # among all of one call, as a share (Benjamini and Hochberg 1995)
SAME_WITHIN = 0.10  # an interval that reaches no further shows that nothing changed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What became of a time, or of a ratio of times.

    Attributes:
        before, now: geometric means over launches.
        factor: ``now / before``.
        low, high: ends of its interval of 95 %; None of fewer launches than `LEAST_LAUNCHES`.
        probability: of so large a difference by chance; 1 of too few launches.
        noise: what launches of one and the same differ by: the larger factor between the odd and the even launches of a side.
        launches: of the baseline, and of the other.
        in_turn: whether the launches of both took turns, so that they are compared pair by pair.
    """

    before: float
    now: float
    factor: float
    low: float | None
    high: float | None
    probability: float
    noise: float
    launches: tuple[int, int]
    in_turn: bool

    def launches_to_tell(self, share: float) -> int | None:
        """Returns how many launches that scatter as these do would show a change.

        Args:
            share: by how much the time changes.

        Returns:
            So many a side that a change of this size has a probability of `SIGNIFICANCE` by chance; None if no number below
            `MOST_LAUNCHES` does, or these launches don't say.
        """
        if self.low is None or self.high is None:
            return None
        count = min(self.launches)
        scatter = math.log(self.high / self.low) / 2 / float(special.stdtrit(count - 1, 0.975)) * math.sqrt(count)
        numbers = np.arange(LEAST_LAUNCHES, MOST_LAUNCHES)
        reach = scatter / np.sqrt(numbers) * special.stdtrit(numbers - 1, 1 - SIGNIFICANCE / 2)
        enough = numbers[reach <= math.log1p(share)]
        return int(enough[0]) if enough.size else None


def change_of(before: Sequence[float], now: Sequence[float], *, in_turn: bool, ratios: Sequence[float] = ()) -> Change:
    """Compares the launches of two runs.

    By Student's t of the logarithms: of the pairs where the launches took turns, else Welch's with the freedom of the smaller
    side (Scheffé 1970), which never errs too often where the two spread differently.

    Args:
        before, now: a positive number a launch.
        in_turn: launch by launch they were measured one right after the other.
        ratios: of launches in which the two took turns step by step, `now` over `before`; they say more than the launches.
    """
    a, b = (np.log(np.asarray(values, dtype=np.float64)) for values in (before, now))
    paired = in_turn and len(a) == len(b)
    if len(ratios):
        paired, b = True, a[: len(ratios)] + np.log(np.asarray(ratios, dtype=np.float64))
        a = a[: len(ratios)]
    difference = float(b.mean() - a.mean())
    enough = min(len(a), len(b)) >= LEAST_LAUNCHES
    low = high = None
    probability, noise = 1.0, 1.0
    if enough:
        freedom = min(len(a), len(b)) - 1
        if paired:
            error = float((b - a).std(ddof=1)) / math.sqrt(len(a))
        else:
            error = math.sqrt(float(a.var(ddof=1)) / len(a) + float(b.var(ddof=1)) / len(b))
        reach = error * float(special.stdtrit(freedom, 0.975))
        low, high = math.exp(difference - reach), math.exp(difference + reach)
        probability = _two_sided(difference, error, freedom)
        noise = math.exp(max(_halves(a), _halves(b)) if not paired else _halves(b - a))
    return Change(
        math.exp(float(a.mean())), math.exp(float(b.mean())), math.exp(difference), low, high, probability, noise,
        (len(a), len(b)), paired,
    )  # fmt: skip


def _two_sided(difference: float, error: float, freedom: int) -> float:
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * special.stdtr(freedom, -abs(difference) / error))


def _halves(values: Array) -> float:
    """Returns by how much the odd launches differ from the even ones: a comparison of what is the same."""
    return abs(float(values[::2].mean() - values[1::2].mean()))


def verdicts(changes: Sequence[Change], allowed: Sequence[float]) -> list[str]:
    """Returns of each change whether it is ``worse``, ``better``, ``same`` or ``can't tell``.

    A change is one if chance makes so large a one in less than `SIGNIFICANCE` of cases, also after the correction for how many
    there are; if it exceeds its own noise and the median noise of all; and if it is more than what is allowed. Nothing changed
    where the interval lies within what is allowed, or within `SAME_WITHIN`.

    Args:
        changes: all that are compared in one call.
        allowed: for each the share by which it may grow, or shrink, and still be the same.
    """
    told = [change for change in changes if change.low is not None]
    corrected: Iterator[float] = iter(())
    usual = 1.0
    if told:
        from scipy import stats  # takes a second to import

        corrected = iter(stats.false_discovery_control([change.probability for change in told]))
        usual = statistics.median(change.noise for change in told)
    found = []
    for change, share in zip(changes, allowed, strict=True):
        if change.low is None or change.high is None:
            found.append("can't tell")
            continue
        sure = float(next(corrected)) <= FALSE_DISCOVERIES and change.probability <= SIGNIFICANCE
        size = max(change.factor, 1 / change.factor)
        if sure and size > max(change.noise, usual) and size > 1 + share:
            found.append("worse" if change.factor > 1 else "better")
        else:
            within = 1 + max(share, SAME_WITHIN)
            found.append("same" if 1 / within < change.low and change.high < within else "can't tell")
    return found


def took_turns(before: Sequence[Row], now: Sequence[Row]) -> bool:
    """Tells whether launches of two runs alternate in time, the same number of each next to each other."""
    if len(before) != len(now):
        return False
    order = sorted([(row.started, 0, row.repeat) for row in before] + [(row.started, 1, row.repeat) for row in now])
    pairs = zip(order[::2], order[1::2], strict=True)
    return all(a[1] != b[1] and a[2] == b[2] for a, b in pairs)
