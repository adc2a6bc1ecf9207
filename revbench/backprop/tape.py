"""What the half steps of one call of a chain share: in backward, the streams that the next one starts from."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from revbench.backprop.certificate import Witness
from revbench.backprop.entering import Entered
from revbench.backprop.ownership import Holders, memory_is_ours, try_out_gradients
from revbench.backprop.recording import Recording
from revbench.backprop.rules import Rule
from revbench.backprop.tripwire import Tripwire

State = tuple[Tensor, ...]


class Step(NamedTuple):
    """One half step of a call.

    Attributes:
        recording: of its function.
        rule: joins the function's value to the stream that is changed.
    """

    recording: Recording
    rule: Rule

    def forward(self, state: State) -> State:
        """Returns the streams after it, of those before it, computed once more with the arguments of the first call."""
        b, *a = state
        return *a, self.rule.forward(b, a, call_again(self.recording, a))


class Tape:
    """What is shared.

    Args:
        witness: sees the activations.
        tripwire: compares what the functions give in backward with what they gave in forward.
        entered: what is kept of the streams that entered: of each but the first, which no function is given.

    Attributes:
        steps: in forward's order.
        first_with_gradient: the index of the first that needs gradient: the last on the way back.
        alone: in backward, what the holders of a gradient are that may be written over.
    """

    def __init__(self, witness: Witness | None, tripwire: Tripwire | None, entered: Sequence[Entered]) -> None:
        self.witness = witness
        self.tripwire = tripwire
        self._entered = entered
        self.steps: list[Step] = []
        self.first_with_gradient: int | None = None
        self._state: State | None = None
        self._owned: tuple[bool, ...] = ()
        self.alone: Holders | None = None

    def begin(self, state: State) -> None:
        """Start backward from the chain's outputs, which the caller may hold: they are not written to.

        Detached: with their history they would keep the graph alive that keeps this tape alive.
        """
        self._state = tuple(stream.detach() for stream in state)
        self._owned = (False,) * len(state)
        self.alone = try_out_gradients()
        for recording, _ in self.steps[self.first_with_gradient or 0 :]:
            recording.prepare_again()
        if self.tripwire is not None:
            self.tripwire.begin(self._state)

    def state(self) -> State:
        """Returns the streams after the half step which is next on the way back: ``(a…, out)``; after `undo` those before it."""
        if self._state is None:
            raise RuntimeError("backward reached the middle of a reversible chain without passing its end")
        return self._state

    def put_back(self, index: int) -> None:
        """Put back what was kept of the stream that `undo` of this half step has brought back, if it is one that entered, and
        its maker's graph is gone: it takes up to half an activation for a moment.
        """
        if 1 <= index <= len(self._entered):
            self._entered[index - 1].put_back(self.state()[0])

    def undo(self, rule: Rule, value: Tensor, *, spare: bool) -> None:
        """Go from the streams after a half step to those before it.

        Args:
            rule: of the half step.
            value: what its function gave for the streams a.
            spare: an operation made it, in the layout of the stream that it was joined to: it may be written
                over if nothing else lies on its memory.
        """
        *a, out = self.state()
        into = None
        if self._owned[-1] and memory_is_ours(out):  # else a module or a hook kept what it was shown
            into = out
        elif spare and value.dtype == out.dtype and value.shape == out.shape and memory_is_ours(value):
            into = value
        elif rule.writes_in_steps:
            into = torch.empty_like(out)
        b = rule.inverse(out, a, value, into=into)
        del out
        self._state = (b, *a)
        self._owned = (True, *self._owned[:-1])

    def end(self, *, needs_out: bool) -> tuple[State, Tensor | None]:
        """Returns the last streams on the way back, given up: a, and out only if that is needed or `settle` will want it."""
        *a, out = self.state()
        self._state = None
        late = self.tripwire is not None and not self.tripwire.immediate
        return tuple(a), out if late or needs_out else None

    def settle(self, index: int, a: State, out: Tensor | None) -> None:
        """Backward is at its end: settle the suspicions that were not settled on the way.

        Args:
            index: of the half step that is the last on the way back.
            a, out: what `end` gave.
        """
        found = {suspicion.index: suspicion for suspicion in self.tripwire.judge()} if self.tripwire else {}
        if not found:
            return
        assert out is not None
        state: State = (*a, out)
        for i, step in enumerate(self.steps[index:], index):  # forward again, from the reconstructed streams
            given = a if i == index else state[1:]
            if i in found:
                found[i].settle(given, functools.partial(call_again, step.recording))
            if i > index:
                state = step.forward(state)


def call_again(recording: Recording, a: Sequence[Tensor]) -> Tensor:
    """Returns what a half step's function gives for streams, with the arguments of its first call."""
    value: Tensor = recording.once_more((*a, *recording.arguments.tensors))
    return value
