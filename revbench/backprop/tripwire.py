"""The tripwire: backward notices that a function computed something else than in forward.

Forward leaves a fingerprint (`revbench.backprop.fingerprint`) of what each function gave; backward compares it with that of
what the function gives when run again. What rounding can explain is not a constant: a reconstructed input differs
from the stored one by an error that grows from block to block. That error is known here, because fingerprints are linear and
every activation is a sum: the error of ``b = out - m(a)`` is that of ``out`` less that of ``m(a)``, both of which were
measured (of rules that are not linear the activation's own is). So a function is suspected if the relative error of its value
is many times that of its input.

A suspicion is no verdict: a function may be steep or have steps. So the function is called again, on the same input (does it
give the same value twice?) and on inputs moved by as much as the input's error. What such moves bring about as well is
rounding; else backward raises.

What it can't see: gradients that are lost while the values are right; changes below the floor of the arithmetic; anything
once reconstruction itself has lost the activations.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

import torch
from torch import Tensor, nn

from revbench.backprop.fingerprint import PHASES, Order, fingerprint, numbers_read
from revbench.backprop.rules import Rule, is_linear
from revbench.backprop.suspicion import Note, Suspicion, changes, distance, measure_sizes, norm, unseen

# Beyond this relative error of its input nothing can be said of a function.
_LOST = 1 / 32
# A value that changes by this share of its norm, the input being lost, is the value of another input.
_GONE = 0.1
# An input that is off by this share of its norm is lost, whatever the function makes of it, in arithmetic at least so fine.
_ALL, _FINE = 0.5, 1e-3
# Once a suspicion was explained, a value must change by this share of its norm to raise another in the same pass.
_AFTER_A_STEP = 0.5
# A chain that makes its input so many times larger is warned of, or in fine arithmetic where epsilon times the square of that
# number, about what the gradient of a chain without normalisation loses, is a hundredth.
_GROWTH = 16.0
# The largest of many normal errors is about so many times their root mean square.
_PEAK = 4.0

_warned: WeakSet[nn.Module] = WeakSet()  # of growth
_warned_of_loss: WeakSet[nn.Module] = WeakSet()
_calls = itertools.count()


def next_phase() -> int:
    """Another phase of fingerprints for each call, so that in a few steps every number is read."""
    call = next(_calls)
    return (call + call // PHASES) % PHASES  # unevenly, so that three chains that take turns read all of them, too


class Tripwire:
    """Watches the half steps of one call of a chain.

    Args:
        epsilon: of the stream's dtype.
        immediate: a half step is judged at once. On a GPU that would mean to wait in the middle of the backward pass; there
            what was found is read once, at its end.
    """

    def __init__(self, epsilon: float, *, immediate: bool) -> None:
        self.immediate = immediate
        self._epsilon = epsilon
        self._phase = next_phase()
        self._notes: list[Note] = []
        self._rules: list[Rule] = []
        self._changed: list[tuple[Tensor, Order | None] | None] = []  # by rules that are not linear
        self._returned: dict[int, Tensor] = {}
        self._entered: list[Tensor] = []
        self._left: list[tuple[Tensor, Order | None]] = []
        self._read = 1
        self._arrived: list[Tensor] = []
        self._unread: list[tuple[int, Tensor]] = []
        self._passed: list[tuple[int, Tensor]] = []
        self._suspicions: list[Suspicion] = []
        self._state: Sequence[_Stream] | None = None

    def note(
        self, name: str, module: nn.Module, value: Tensor, arithmetic: torch.dtype, *, rule: Rule, changes: Tensor
    ) -> None:
        """Forward: what a half step's function gave, and the stream that its rule changes by that."""
        self._notes.append(Note(name, module, value, arithmetic, self._phase))
        self._rules.append(rule)
        self._changed.append(None if is_linear(rule) else fingerprint(changes, None, self._phase))

    def enter(self, state: Sequence[Tensor]) -> None:
        """Take note in forward of the streams before the first half step."""
        self._entered = [fingerprint(stream, None, self._phase)[0] for stream in state]

    def leave(self, state: Sequence[Tensor]) -> None:
        """Take note in forward of the streams after the last half step."""
        self._left = [fingerprint(stream, None, self._phase) for stream in state]
        self._read = sum(map(numbers_read, state[:-1]))
        if self.immediate:
            measure_sizes(self._notes)

    def begin(self, state: Sequence[Tensor]) -> None:
        """Take note in backward of the same streams.

        Raises:
            RuntimeError: one was changed.
        """
        self._state, self._unread, self._passed, self._suspicions = None, [], [], []
        streams = zip(state, self._left, strict=True)
        self._arrived = [fingerprint(stream, order, self._phase)[0] for stream, (_, order) in streams]
        if self.immediate:
            self._compare_ends()

    def look(self, index: int, value: Tensor) -> list[Suspicion]:
        """Take note in backward of what a half step's function gave again.

        Args:
            index: of the half step.
            value: what its function gave.

        Returns:
            Suspicions that the caller must settle.
        """
        note = self._notes[index]
        now = note.now(value)
        if self.immediate and distance(now, note.before, note.size) <= note.floor * note.size:
            self._passed.append((index, now))
            return []
        self._unread.append((index, now))
        return self.judge() if self.immediate else []

    def judge(self) -> list[Suspicion]:
        """Compare in backward what `look` has seen and not compared; returns what is suspicious, in the order of forward.

        Raises:
            RuntimeError: the pair that left the chain was changed.
        """
        if not self.immediate:
            self._compare_ends()
        unread, self._unread = self._unread, []
        found: list[Suspicion] = []
        gone: tuple[Note, float] | None = None
        notes = [self._notes[index] for index, _ in unread]
        measured = changes(notes, [now for _, now in unread])
        for (index, now), note, (change, size) in zip(unread, notes, measured, strict=True):
            # Most do not differ by more than the floor; how large their input's error is need not be known.
            if not change <= note.floor * size and math.isfinite(size):
                relative, each = self._input_error()
                # A function that took another step than in forward leaves an error in one place, unlike any random move.
                stepped = any(suspicion.explained for suspicion in self._suspicions)
                allowed = max(note.allowed(relative), _AFTER_A_STEP if stepped else 0.0)
                if relative >= _LOST:
                    moved = size > 0 and change > max(_GONE, 8 * note.floor) * size
                    if gone is None and (moved or (relative >= _ALL and note.floor < _FINE)):
                        gone = note, relative
                elif relative < _LOST and not change <= allowed * size:
                    found.append(Suspicion(note, now, change, size, relative, each, index))
            self._passed.append((index, now))
        self._suspicions += found
        if gone is not None and not found:  # else it may be the fault of what is suspected
            self._warn_of_loss(*gone)
        return found[::-1]

    def _warn_of_loss(self, note: Note, error: float) -> None:
        first = self._notes[0].module
        if first not in _warned_of_loss:
            _warned_of_loss.add(first)
            warnings.warn(
                f"reconstruction has lost the activations that {note.name} is given: they are off by about {error:.2g} of their"
                " norm, so the gradient of what is before it is wrong; use float64, fewer blocks, a coupling that"
                " grows errors less, or strategy 'stored'",
                stacklevel=2,
            )

    def bring_back(self, index: int, stream: Tensor) -> None:
        """Take note in backward of the stream that was had back from a half step."""
        changed = self._changed[index]
        if changed is not None:
            self._returned[index] = fingerprint(stream, changed[1], self._phase)[0]

    def _input_error(self) -> tuple[float, float]:
        """Returns the error of the input of the half step that is next on the way back: relative, and of one number of it."""
        with unseen():
            if self._state is None:
                state = [
                    _Stream(stored.double(), torch.zeros_like(stored, dtype=torch.float64), 0.0)
                    for stored, _ in self._left
                ]
            else:
                state = list(self._state)
            for index, now in self._passed:
                state = [self._before(index, state, now), *state[:-1]]
            self._state, self._passed = state, []
            *a, out = state
            size = math.hypot(*(norm(stream.stored) for stream in a))
            error = math.hypot(*(norm(stream.error) for stream in a), *(stream.rounding for stream in a))
            # Steps of other functions leave errors in few places: there they are larger than the norm shows.
            if error > 0:
                largest = max(stream.error.abs().max().item() * math.sqrt(len(stream.error)) for stream in a)
                error *= max(1.0, largest / (_PEAK * error))
            if not error < _LOST * size:  # an input of zeros, beside a half that is none: a closer look tells
                size = max(size, norm(out.stored))
            return error / size if size > 0 else 0.0, error / math.sqrt(self._read)

    def _before(self, index: int, state: Sequence[_Stream], now: Tensor) -> _Stream:
        """Returns the stream that a half step changed, as it was before, of those after it.

        Args:
            index: of the half step.
            state: the streams after it.
            now: the fingerprint of what its function gave again.
        """
        rule, changed, before = self._rules[index], self._changed[index], self._notes[index].before.double()
        if changed is not None:
            stored = changed[0].double()
            return _Stream(stored, self._returned[index].double() - stored, 0.0)
        assert is_linear(rule)
        a, out = state[-2], state[-1]
        rounding = math.hypot(out.rounding, self._epsilon * norm(out.stored))
        stored, error = out.stored - rule.scale * before, out.error - rule.scale * (now.double() - before)
        if rule.take:
            stored, error = stored - rule.take * a.stored, error - rule.take * a.error
            rounding = math.hypot(rounding, rule.take * a.rounding)
        return _Stream(stored / rule.keep, error / rule.keep, rounding / abs(rule.keep))

    def _compare_ends(self) -> None:
        with unseen():
            for (before, _), now in zip(self._left, self._arrived, strict=True):
                if not torch.equal(before, now) and now.isfinite().all():
                    raise RuntimeError(
                        "the output of a reversible chain was changed between forward and backward (by .data or by NumPy, since"
                        " PyTorch did not notice), so its activations can't be reconstructed; change a copy of it"
                    )
            first = self._notes[0].module
            bound = max(_GROWTH, math.sqrt(1e-2 / self._epsilon))
            if first not in _warned and (growth := self._growth()) > bound:
                _warned.add(first)
                warnings.warn(
                    f"the output of a reversible chain of {len(self._notes)} half blocks is {growth:.2g} times as large as its"
                    f" input, so reconstruction may change its gradient by up to {self._epsilon * growth**2:.1g} of its norm;"
                    " begin F and G with a normalisation, use float64, or set strategy 'stored'",
                    stacklevel=2,
                )

    def _growth(self) -> float:
        """Returns the norm of the streams that left over that of those that entered; 0 of zeros, which nothing can grow."""
        entered = math.hypot(*map(norm, self._entered))
        return math.hypot(*(norm(left) for left, _ in self._left)) / entered if entered > 0 else 0.0


@dataclass
class _Stream:
    """One activation on the way back.

    Attributes:
        stored: the fingerprint of the activation that forward had.
        error: that of what the reconstructed one differs by, as far as it was measured.
        rounding: the norm of what rounding may have added.
    """

    stored: Tensor
    error: Tensor
    rounding: float
