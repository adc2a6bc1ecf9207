"""Whether a gradient can be trusted, in words."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Reconstruction is called safe if it leaves the smooth error of the same size as rounding alone, or negligible beside the
# noise of a minibatch; lost is a block half of whose gradient is error (an angle of 30 degrees).
HARMLESS_AMPLIFICATION = 2.0
HARMLESS_ERROR = 1e-3
LOST_ERROR = 0.5
# Of the smooth error of stored: more than this many epsilons no rounding explains in a network that can be trained.
STRANGE_EPSILONS = 1e4
# A gradient that differs by more than this share from the derivative of its loss is another's.
WRONG_DERIVATIVE = 1e-2


@dataclass(frozen=True)
class Verdict:
    """A judgement.

    Attributes:
        word: ``safe``, ``caution`` or ``unsafe``; ``reference`` of `stored`, which is what others are measured by.
        words: a sentence that begins with it.
    """

    word: str
    words: str


def judge(
    samples: Mapping[str, Sequence[float]], places: Mapping[str, Sequence[Any]], strategy: str, arithmetic: str,
    trace: Sequence[str], coarse_casts: str | None, own_functions: str | None = None,
) -> Verdict:  # fmt: skip
    """Judge what was measured; by the smooth part where there is one, else by the whole.

    Args:
        samples, places: of a `revbench.numerics.record.DriftRecord`.
        strategy: whose gradient it is.
        arithmetic: what figures are called by.
        trace: what the step left behind otherwise than `stored`.
        coarse_casts: where the network computes in a coarser dtype than that.
        own_functions: by which the reference back-propagates, if there is no stored twin.
    """
    part = "smooth_" if samples.get("smooth_relative_error") else ""
    error = statistics.median(samples[f"{part}relative_error"])
    amplifications = samples.get(f"{part}amplification")
    if trace:
        return _verdict("unsafe", f"{strategy} leaves {', '.join(trace)} otherwise than stored does")
    wrong = wrong_derivative(samples, own_functions)
    if wrong is not None:
        return _verdict("unsafe", wrong)
    strange = strange_reference(samples)
    if strange is not None:
        return _verdict("unsafe", strange)
    if coarse_casts is not None:
        return _verdict("unsafe", f"the network computes in {coarse_casts}, coarser than {arithmetic}")
    if strategy == "stored" and own_functions is not None:
        agreement = max(samples["derivative_error"])
        return _verdict(
            "safe" if error <= HARMLESS_ERROR else "caution",
            f"it back-propagates by {own_functions}, without a stored twin; its gradient in float64 is the derivative of its loss"
            f" to {max(agreement, 1e-6):.0e}, and {arithmetic} differs from that by {_of(error)}",
        )
    if strategy == "stored":
        noise = "the reference itself" if arithmetic == "float64" else f"{arithmetic} rounding alone, {_of(error)}"
        return _verdict("reference", noise)
    lost = _lost_at(places, part)
    if lost is not None:
        return _verdict("unsafe", f"{arithmetic} loses the gradient at {lost}")
    if amplifications is None:
        word = "safe" if error <= HARMLESS_ERROR else "caution"
        units = samples.get(f"{part or ''}error_epsilons")
        counted = f", {statistics.median(units):.3g} epsilon" if units else ""
        return _verdict(word, f"the error is {_of(error)}{counted}")
    amplification = statistics.median(amplifications)
    said = f"{strategy} has {amplification:.2f} × the {arithmetic} rounding error of stored, {_of(error)}"
    if amplification <= HARMLESS_AMPLIFICATION or error <= HARMLESS_ERROR:
        return _verdict("safe", said)
    return _verdict("caution" if error < LOST_ERROR else "unsafe", said)


def wrong_derivative(samples: Mapping[str, Sequence[float]], own_functions: str | None) -> str | None:
    """A sentence if a gradient that has no stored twin is not the derivative of its loss; else None."""
    errors = samples.get("derivative_error")
    if own_functions is None or not errors or max(errors) <= WRONG_DERIVATIVE:
        return None
    return (
        f"the backward pass of {own_functions} gives a gradient that is {max(errors):.0%} off the derivative of its own loss, in"
        " float64 (unless it is meant to, as a straight-through estimate is)"
    )


def strange_reference(samples: Mapping[str, Sequence[float]]) -> str | None:
    """A sentence if `stored` is so far from its own float64 reference that rounding can't be why; else None."""
    errors, counted = samples.get("smooth_stored_relative_error"), samples.get("smooth_error_epsilons")
    if not errors or not counted:
        return None
    error = max(errors)
    whole = statistics.median(samples["smooth_relative_error"])
    epsilon = whole / statistics.median(counted) if whole > 0 else 0.0
    if error < min(LOST_ERROR, STRANGE_EPSILONS * epsilon) or error == 0:
        return None
    return (
        f"stored itself is off its float64 reference by {error:.1e}, more than rounding explains: the reference drew other"
        " random numbers, computes another function, or the network is ill-conditioned"
    )


def _verdict(word: str, sentence: str) -> Verdict:
    return Verdict(word, f"{word}: {sentence}")


def _of(error: float) -> str:
    return f"{error:.1e} of the gradient" if error else "nothing"


def _lost_at(places: Mapping[str, Sequence[Any]], part: str) -> str | None:
    """The first block on the way back of whose gradient half is error, and twice what stored has."""
    columns = (places["level"], places["name"], places[f"{part}relative_error"], places[f"{part}stored_relative_error"])
    for level, name, error, stored in reversed(list(zip(*columns, strict=True))):
        worse = (
            error is not None and stored is not None and error >= LOST_ERROR and error > HARMLESS_AMPLIFICATION * stored
        )
        if level == "block" and worse:
            return f"block {name}"
    return None
