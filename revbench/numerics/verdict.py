"""Whether a gradient can be trusted, in words: by its whole error, beside what a minibatch leaves open and what stored has."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from revbench.case import Arithmetic
from revbench.numerics.part_table import PartTable
from revbench.units import human_count, human_share

# Of the parts, what is looked at.
PART_ERRORS = ("relative_error", "stored_relative_error")
# An independent error of this share of a minibatch's noise adds one hundredth to its variance.
UNSEEN = 0.1
# One of this share adds a quarter: as if a fifth of the batch were missing.
HARMFUL = 0.5
# No worse than stored: at most this many times its error.
AS_STORED = 2.0
# Half of a block's gradient is error: an angle of 30 degrees.
LOST_ERROR = 0.5
# Of the smooth error of stored: more than this many epsilons no rounding explains in a network that can be trained.
STRANGE_EPSILONS = 1e4
# A gradient that differs by more than this share from the derivative of its loss is another's.
WRONG_DERIVATIVE = 1e-2


@dataclass(frozen=True)
class Verdict:
    """A judgement.

    Attributes:
        word: ``safe`` (no training would see the error), ``as stored`` (one might, but stored has it, too), ``caution``,
            ``unsafe``; ``reference`` of `stored`, which is what others are measured by.
        head: it, and why in one sentence.
        words: sentences that begin with this one.
    """

    word: str
    head: str
    words: str


def judge(
    samples: Mapping[str, Sequence[float]], parts: PartTable, strategy: str, arithmetic: Arithmetic,
    trace: Sequence[str], coarse_casts: str | None, own_functions: str | None = None,
) -> Verdict:  # fmt: skip
    """Judge what was measured, by all draws.

    Args:
        samples, parts: of a `revbench.numerics.drift_record.DriftRecord`, or of several launches' rows together.
        strategy: whose gradient it is.
        arithmetic: in which it was computed.
        trace: what the step left behind otherwise than `stored`.
        coarse_casts: where the network computes in a coarser dtype than that.
        own_functions: by which the reference back-propagates, if there is no stored twin.
    """
    if trace:
        return _verdict("unsafe", f"{strategy} leaves {', '.join(trace)} otherwise than stored does")
    wrong = wrong_derivative(samples, own_functions)
    if wrong is not None:
        return _verdict("unsafe", wrong)
    strange = strange_reference(samples)
    if strange is not None:
        return _verdict("unsafe", strange)
    if coarse_casts is not None:
        return _verdict("unsafe", f"the network computes in {coarse_casts}, coarser than {arithmetic.name}")
    figures = f"{_whole(samples)}{_parts(samples)}"
    if strategy == "stored" and own_functions is None:
        if arithmetic.is_reference:
            return _verdict("reference", "the reference itself")
        return _verdict("reference", f"{arithmetic.name} rounding alone", figures)
    if own_functions is not None and strategy == "stored":
        agreement = max(max(samples["derivative_error"]), 1e-6)
        of_it = (
            f"It back-propagates by {own_functions}, without a stored twin; in float64 its gradient is the derivative of its"
            f" loss to {agreement:.0e}. "
        )
        word = _word(samples, beside_stored=False)
        return _verdict(word, _said(word, samples), f"{of_it}{figures}")
    lost = _lost_at(parts)
    word = _word(samples, beside_stored=True)
    if lost is not None and word != "safe":
        return _verdict("unsafe", f"{arithmetic.name} loses the gradient at {lost}", figures)
    return _verdict(word, _said(word, samples), figures)


def _word(samples: Mapping[str, Sequence[float]], *, beside_stored: bool) -> str:
    """Judges by the largest of the draws' errors over their batches' noise, and the median of those over stored's."""
    seen = samples.get("error_over_noise")
    if seen and max(seen) <= UNSEEN:
        return "safe"
    amplification = samples.get("amplification")
    if beside_stored and amplification and statistics.median(amplification) <= AS_STORED:
        return "as stored"
    if not seen:  # nobody measured what matters: only what no arithmetic of this kind could do better
        return "caution"
    return "caution" if max(seen) <= HARMFUL else "unsafe"


def _said(word: str, samples: Mapping[str, Sequence[float]]) -> str:
    return {
        "safe": "no training would see it",
        "as stored": _as_stored(samples),
        "caution": "a training might see it"
        if samples.get("error_over_noise")
        else "nobody measured the noise of a batch",
        "unsafe": "a training would see it",
    }[word]


def _as_stored(samples: Mapping[str, Sequence[float]]) -> str:
    stored, noise = samples.get("stored_relative_error"), samples.get("noise")
    both = bool(stored and noise) and max(stored or ()) > HARMFUL * statistics.median(noise or ())
    return f"at most twice stored's error{', and a training would see that of stored, too' if both else ''}"


def _whole(samples: Mapping[str, Sequence[float]]) -> str:
    """Returns the whole error, stored's, and what of a minibatch's noise it is."""
    error = statistics.median(samples["relative_error"])
    said = f"The whole error is {human_share(error)} of the gradient"
    stored = samples.get("stored_relative_error")
    if stored and list(stored) != list(samples["relative_error"]) and any(stored):
        said += f" (stored: {human_share(statistics.median(stored))})"
    noise, seen = samples.get("noise"), samples.get("error_over_noise")
    if noise and seen:
        said += (
            f", at most {human_share(max(seen))} of a batch's noise (which is {human_share(statistics.median(noise))} of the"
            " gradient)"
        )
    return said


def _parts(samples: Mapping[str, Sequence[float]]) -> str:
    """Returns what it is made of: rounding, and flips beside those that the errors of the activations predict."""
    said = ""
    smooth, over = samples.get("smooth_relative_error"), samples.get("smooth_amplification")
    if smooth:
        said += f"; rounding alone {human_share(statistics.median(smooth))}"
        if over and any(value != 1 for value in over):
            said += f", {statistics.median(over):.3g} × stored's"
    flips, stored = samples.get("flips"), samples.get("stored_flips")
    if flips and stored:
        said += f"; flips {human_count(statistics.fmean(flips))} a step"
        expected = samples.get("expected_flips")
        if expected:
            said += f" (expected from the activations' errors: {human_count(statistics.fmean(expected))})"
        said += f", of stored {human_count(statistics.fmean(stored))}" if list(stored) != list(flips) else ", as stored"
    return said


def wrong_derivative(samples: Mapping[str, Sequence[float]], own_functions: str | None) -> str | None:
    """Returns a sentence if a gradient that has no stored twin is not the derivative of its loss; else None."""
    errors = samples.get("derivative_error")
    if own_functions is None or not errors or max(errors) <= WRONG_DERIVATIVE:
        return None
    return (
        f"the backward pass of {own_functions} gives a gradient that is {max(errors):.0%} off the derivative of its own loss, in"
        " float64 (unless it is meant to, as a straight-through estimate is)"
    )


def strange_reference(samples: Mapping[str, Sequence[float]]) -> str | None:
    """Returns a sentence if `stored` is so far from its own float64 reference that rounding can't be why; else None."""
    errors, counted = samples.get("smooth_stored_relative_error"), samples.get("smooth_error_epsilons")
    smooth = samples.get("smooth_relative_error")
    if not errors or not counted or not smooth:
        return None
    error = max(errors)
    whole, epsilons = statistics.median(smooth), statistics.median(counted)
    epsilon = whole / epsilons if whole > 0 and epsilons > 0 else 0.0
    if error < min(LOST_ERROR, STRANGE_EPSILONS * epsilon) or error == 0:
        return None
    return (
        f"stored itself is off its float64 reference by {error:.1e}, more than rounding explains: the reference drew other"
        " random numbers, computes another function, or the network is ill-conditioned"
    )


def _verdict(word: str, why: str, more: str = "") -> Verdict:
    head = f"{word}: {why}"
    return Verdict(word, head, f"{head}. {more}" if more else head)


def _lost_at(parts: PartTable) -> str | None:
    """Returns the first block on the way back of whose gradient half is error, and twice what stored has."""
    for name, error, stored in reversed(parts.blocks(*PART_ERRORS)):
        if error is not None and stored is not None and error >= LOST_ERROR and error > AS_STORED * stored:
            return f"block {name}"
    return None
