"""Activations that are NaN or infinite: found at the end of a chain, and traced back to the function that they came from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from revbench.backprop.recording import Recording
from revbench.backprop.stream import FloatStream
from revbench.backprop.tape import call_again


def all_finite(*halves: Tensor) -> bool:
    """Tells whether all of these are; one sum each at first: it is finite if all is, but for a sum that overflows."""
    return all(bool(half.sum().isfinite()) or bool(half.isfinite().all()) for half in halves)


def refuse_what_is_not_finite(recordings: Sequence[Recording], a: Tensor, b: Tensor, stream: FloatStream) -> None:
    """Raise for the first half step that has to do with NaN or infinity.

    Once in the stream, they stay: looking at its end is enough to know, and running again finds where they came from.
    """
    for recording in recordings:
        finite = {"is given": all_finite(a), "is added to": all_finite(b)}
        if all(finite.values()):
            a, b = stream.add(b, call_again(recording, a)), a
            finite["returned"] = all_finite(a)
        for what, well in finite.items():
            if not well:
                raise FloatingPointError(
                    f"{recording.name} {what} values that are NaN or infinite, so activations before it can't be"
                    " reconstructed; look at the input, the weights and the learning rate, or go on with strategy 'stored'"
                )
    names = f"{recordings[0].name} to {recordings[-1].name}"
    raise FloatingPointError(f"from {names} an activation became NaN or infinite, but not when run again")
