"""Activations that are NaN or infinite: found at the end of a chain, and traced back to the function that they came from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from revbench.backprop.tape import State, Step


def all_finite(*halves: Tensor) -> bool:
    """Tells whether all of these are; one sum each at first: it is finite if all is, but for a sum that overflows."""
    return all(bool(half.sum().isfinite()) or bool(half.isfinite().all()) for half in halves)


def refuse_what_is_not_finite(steps: Sequence[Step], state: State) -> None:
    """Raise for the first half step that has to do with NaN or infinity.

    Once in a stream, they stay: looking at the end is enough to know, and running again finds where they came from.

    Args:
        steps: all of the chain.
        state: the streams that entered.
    """
    for step in steps:
        b, *a = state
        finite = {"is given": all_finite(*a), "is added to": all_finite(b)}
        if all(finite.values()):
            state = step.forward(state)
            finite["returned"] = all_finite(state[-1])
        for what, well in finite.items():
            if not well:
                raise FloatingPointError(
                    f"{step.recording.name} {what} values that are NaN or infinite, so activations before it can't be"
                    " reconstructed; look at the input, the weights and the learning rate, or go on with strategy 'stored'"
                )
    names = f"{steps[0].recording.name} to {steps[-1].recording.name}"
    raise FloatingPointError(f"from {names} an activation became NaN or infinite, but not when run again")
