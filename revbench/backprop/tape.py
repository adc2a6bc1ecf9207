"""What the half steps of one call of a chain share: in backward, the pair of activations that the next one starts from."""

from __future__ import annotations

import functools

from torch import Tensor

from revbench.backprop.certificate import Witness
from revbench.backprop.ownership import Holders, memory_is_ours, try_out_gradients
from revbench.backprop.recording import Recording
from revbench.backprop.stream import FloatStream
from revbench.backprop.tripwire import Tripwire
from revbench.backprop.zeros import Zeros


class Tape:
    """What is shared.

    Args:
        stream: how a half step is added and undone.
        witness: sees the activations.
        tripwire: compares what the functions give in backward with what they gave in forward.
        zeros: of the half that the first half step's function is given; None if that is not reconstructed.

    Attributes:
        recordings: of the half steps, in forward's order.
        first_with_gradient: the index of the first that needs gradient: the last on the way back.
        alone: in backward, what the holders of a gradient are that may be written over.
    """

    def __init__(
        self, stream: FloatStream, witness: Witness | None, tripwire: Tripwire | None, zeros: Zeros | None
    ) -> None:
        self.stream = stream
        self.witness = witness
        self.tripwire = tripwire
        self._zeros = zeros
        self.recordings: list[Recording] = []
        self.first_with_gradient: int | None = None
        self._pair: tuple[Tensor, Tensor] | None = None
        self._owned = (False, False)
        self.alone: Holders | None = None

    def begin(self, a: Tensor, out: Tensor) -> None:
        """Start backward from the chain's outputs, which the caller may hold: they are not written to.

        Detached: with their history they would keep the graph alive that keeps this tape alive.
        """
        self._pair = (a.detach(), out.detach())
        self._owned = (False, False)
        self.alone = try_out_gradients()
        for recording in self.recordings[self.first_with_gradient or 0 :]:
            recording.prepare_again()
        if self.tripwire is not None:
            self.tripwire.begin(*self._pair)

    def pair(self) -> tuple[Tensor, Tensor]:
        """Returns the activations that the half step which is next on the way back was given and gave: ``(a, out)``."""
        if self._pair is None:
            raise RuntimeError("backward reached the middle of a reversible chain without passing its end")
        return self._pair

    def put_zeros_back(self) -> None:
        """Put the zeros back into the activation that the chain's first half step was given, once that is reconstructed and
        its maker's graph is
        gone: it takes up to half an activation for a moment.
        """
        if self._zeros is not None:
            self._zeros.put_back(self.pair()[0])

    def undo(self, value: Tensor, *, spare: bool) -> None:
        """Go from a half step's ``(a, out)`` to those of the half step before it.

        Args:
            value: the half step's residual, ``m(a)``.
            spare: an operation made it, in the layout of the activation that it was added to: it may be written
                over if nothing else lies on its memory.
        """
        a, out = self.pair()
        into = None
        if self._owned[1] and memory_is_ours(out):  # else a module or a hook kept what it was shown
            into = out
        elif spare and value.dtype == out.dtype and memory_is_ours(value):
            into = value
        b = self.stream.subtract(out, value, into=into)
        del out
        self._pair = (b, a)
        self._owned = (True, self._owned[0])

    def end(self) -> tuple[Tensor, Tensor | None]:
        """Returns the last pair on the way back, given up: the second of it only if `settle` will want it."""
        a, out = self.pair()
        self._pair = None
        late = self.tripwire is not None and not self.tripwire.immediate
        return a, out if late else None

    def settle(self, index: int, a: Tensor, out: Tensor | None) -> None:
        """Backward is at its end: settle the suspicions that were not settled on the way.

        Args:
            index: of the half step that is the last on the way back.
            a, out: what `end` gave.
        """
        found = {suspicion.index: suspicion for suspicion in self.tripwire.judge()} if self.tripwire else {}
        if not found:
            return
        assert out is not None
        b = a  # Forward again, from the reconstructed pair, to where they were found.
        for i, recording in enumerate(self.recordings[index:], index):
            if i in found:
                found[i].settle(a, functools.partial(call_again, recording))
            a, b = out if i == index else self.stream.add(b, call_again(recording, a)), a


def call_again(recording: Recording, a: Tensor) -> Tensor:
    """Returns what a half step's function gives for an activation, with the arguments of its first call."""
    value: Tensor = recording.once_more((a, *recording.arguments.tensors))
    return value
