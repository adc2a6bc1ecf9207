"""The largest batch, or the deepest network, that fits into so much memory, by prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from revbench.case import Case
from revbench.errors import UserError
from revbench.prediction.predict import Predictor

_SURELY = 64  # at which memory grows, if it does: the smallest networks have peaks of their own kind
MARGIN = 0.1  # of the limit, left for what no count of tensors tells: context, workspaces, fragmentation


@dataclass(frozen=True)
class Fit:
    """The largest value of a setting with which a step fits.

    Attributes:
        case: with that setting; None if the smallest does not fit.
        value: of the setting.
        peak_bytes: predicted for `case`, or for the smallest setting if `case` is None.
        checked: whether the step was predicted at this very value, where it fits, and at the next, where it does not; else
            the value is extrapolated from smaller ones.
        limit_bytes: what was given.
        usable_bytes: what of it was filled.
    """

    case: Case | None
    value: int
    peak_bytes: int
    checked: bool
    limit_bytes: int
    usable_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "case": None if self.case is None else self.case.to_json()}


def largest_batch(case: Case, limit_bytes: int, *, margin: float = MARGIN) -> Fit:
    """The largest batch whose training step fits.

    Memory is affine in the batch as long as its peak stands at the same place: two predictions give a line, and
    the batch that the line names is predicted itself, and the next one.

    Args:
        case: its own batch size does not count.
        limit_bytes: of memory.
        margin: share of the limit that stays free.

    Raises:
        UserError: a limit of no bytes, and what `predict` raises.
    """
    return largest(case, lambda size: case.replace(batch_size=size), limit_bytes, margin, start=16)


def largest(
    case: Case, at: Callable[[int], Case], limit_bytes: int, margin: float, *, start: int, longest: int | None = None
) -> Fit:
    """The largest value whose case fits: lines through the two nearest predictions, until one value fits and the next does not.

    Args:
        case: for messages.
        at: the case of a value.
        limit_bytes, margin: as above.
        start: the value predicted first, beside 1.
        longest: no value above this is predicted; a larger answer is extrapolated.
    """
    if limit_bytes < 1:
        raise UserError(f"a limit of {limit_bytes} bytes fits nothing; give one as 24GiB")
    usable = int(limit_bytes * (1 - margin))
    predict = Predictor().predict
    fits = {1: predict(at(1)).step.peak_bytes}
    if fits[1] > usable:
        return Fit(None, 0, fits[1], True, limit_bytes, usable)
    too_large: dict[int, int] = {}
    guess = start
    while True:
        peak = predict(at(guess)).step.peak_bytes
        (fits if peak <= usable else too_large)[guess] = peak
        low = max(fits)
        if low + 1 in too_large:
            return Fit(at(low), low, fits[low], True, limit_bytes, usable)
        other = min(too_large) if too_large else sorted(fits)[-2]
        slope = ((too_large.get(other) or fits[other]) - fits[low]) / (other - low)
        if slope <= 0 and low >= _SURELY:
            raise UserError(f"{case.id}: memory does not grow with this setting, so nothing limits it")
        guess = low + (max(int((usable - fits[low]) / slope), 1) if slope > 0 else low)
        if too_large:
            guess = min(guess, min(too_large) - 1)
        elif longest is not None and guess > longest:
            if low == longest:
                return Fit(at(guess), guess, int(fits[low] + slope * (guess - low)), False, limit_bytes, usable)
            guess = longest
