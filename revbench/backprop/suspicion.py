"""One function's value in forward and again: a fingerprint of each, and whether rounding explains how they differ."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.fingerprint import fingerprint
from revbench.backprop.module_state import forget

# Relative changes of a value below which nothing is suspected, by the coarsest arithmetic that took part.
_FLOOR = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 3e-2}
# So many times the relative error of its input may be that of a function's value before the function is looked at.
_STEEP = 16.0
_TRIALS = 40
_AGREEMENTS = 3  # of a function with itself, before moves of its input explain anything
# A move of the input has explained a suspicion if it changes the value by this share of what was found: errors have directions
# that random moves do not have. Less patience where rounding itself is coarse.
_SHARE, _SHARE_IF_COARSE = 1 / 64, 1 / 16
# So many explained suspicions of one module before its own steepness is taken for known.
_PATIENCE = 3
_LOOKED_AT = 8  # then once in so many times it is looked at as before: what it reads may have been changed since
# Norms between which sums of squares neither vanish nor overflow, by the dtype of the fingerprints.
_SQUARABLE = {torch.float32: (1e-12, 1e15), torch.float64: (1e-130, 1e130)}
_NOTHING = nullcontext()


@dataclass
class _Steepness:
    """Counts for one module whose suspicions were explained how often they were, and how many times its input's error is
    allowed."""

    explained: int = 0
    allowed: float = _STEEP
    _asked: int = 0

    def next(self) -> float:
        """Returns what is allowed this time."""
        self._asked += 1
        return self.allowed if self._asked % _LOOKED_AT else _STEEP


_known: WeakKeyDictionary[nn.Module, _Steepness] = WeakKeyDictionary()


class Note:
    """What one function gave in forward.

    Args:
        name: of the function.
        module: the function.
        value: what it gave.
        arithmetic: the coarsest dtype that it may have computed in.
        phase: of the fingerprint.

    Attributes:
        before: the fingerprint of the value.
        floor: the relative change below which nothing is suspected.
    """

    __slots__ = ("_order", "_phase", "_size", "before", "floor", "module", "name")

    def __init__(self, name: str, module: nn.Module, value: Tensor, arithmetic: torch.dtype, phase: int) -> None:
        self.name, self.module = name, module
        self.floor = _FLOOR.get(arithmetic, _FLOOR[torch.bfloat16])
        self._phase = phase
        self.before, self._order = fingerprint(value, None, phase)
        self._size: float | None = None

    @property
    def size(self) -> float:
        """The norm of `before`; on a GPU it is waited for."""
        if self._size is None:
            self._size = norm(self.before)
        return self._size

    def now(self, value: Tensor) -> Tensor:
        """Returns the fingerprint of what it gave again."""
        return fingerprint(value, self._order, self._phase)[0]

    def allowed(self, input_error: float) -> float:
        """Returns what relative change an input's relative error explains without a closer look.

        A module whose steepness is known is looked at all the same, once in a while.
        """
        known = _known.get(self.module)
        steepness = _STEEP if known is None else known.next()
        return self.floor + steepness * input_error


def watchable(tensor: Tensor) -> bool:
    """Tells whether a tensor has numbers that can be looked at."""
    return not (isinstance(tensor, FakeTensor) or tensor.is_meta) and (
        tensor.is_floating_point() or tensor.is_complex()
    )


def changes(notes: Sequence[Note], now: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Returns how far values are from those of forward, and the norms of those, in one transfer from the device.

    Args:
        notes: of the functions.
        now: fingerprints of what they gave again.
    """
    with unseen():
        moved = [found - note.before for note, found in zip(notes, now, strict=True)]
        squares = [torch.dot(x, x) for x in (*moved, *(note.before for note in notes))]
        found: list[float] = (
            torch.stack(squares).tolist() if len(squares) > 2 else [square.item() for square in squares]
        )
    norms = [math.sqrt(square) if square >= 0 else math.nan for square in found]
    measured = zip(norms[: len(notes)], norms[len(notes) :], strict=True)
    return [
        (change, size) if _is_squarable(size, difference.dtype) else (norm(difference), note.size)
        for (change, size), difference, note in zip(measured, moved, notes, strict=True)
    ]


def _is_squarable(size: float, dtype: torch.dtype) -> bool:
    least, most = _SQUARABLE[dtype]
    return least < size < most


def norm(x: Tensor) -> float:
    """Returns the Euclidean norm of a fingerprint, of values of any size."""
    with unseen():
        wide = x.double()
        largest = wide.abs().max().item()
        return largest * (wide / largest).norm().item() if 0 < largest < math.inf else largest


def distance(a: Tensor, b: Tensor, size: float) -> float:
    """Returns the Euclidean distance of two fingerprints, of which one is about of the norm `size`."""
    if not _is_squarable(size, a.dtype):
        return norm(a.double() - b.double())
    with unseen():
        return torch.dist(a, b).item()


def measure_sizes(notes: Sequence[Note]) -> None:
    """Takes the norms of what functions gave, all at once: between two of them it would take several times as long."""
    if len({len(note.before) for note in notes}) != 1:
        return
    with unseen():
        sizes = torch.stack([note.before for note in notes]).norm(dim=1).tolist()
    for note, size in zip(notes, sizes, strict=True):
        if _is_squarable(size, note.before.dtype):
            note._size = size


class Suspicion:
    """A function whose value changed by more than its input's error would make one expect.

    Args:
        note: of the function.
        now: the fingerprint of its value when run again.
        change: the norm of the difference to that of forward.
        size: the norm of the fingerprint of forward.
        input_error: relative, of its input.
        each: the error of one number of its input.
        index: of the function, for the caller.

    Attributes:
        explained: whether `settle` found that rounding explains it.
    """

    def __init__(
        self,
        note: Note,
        now: Tensor,
        change: float,
        size: float,
        input_error: float = 0.0,
        each: float = 0.0,
        index: int = 0,
    ) -> None:
        self.note, self.now, self.change, self.index = note, now, change, index
        self.input_error, self._each = input_error, each
        self.explained = False
        self.relative = change / size if size > 0 else math.inf

    def settle(self, inputs: Sequence[Tensor], call: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """Find out whether rounding explains it.

        Args:
            inputs: what the function was given when it ran again.
            call: runs it again on other inputs, with the same random numbers.

        Raises:
            RuntimeError: it does not.
        """
        share = _SHARE if self.note.floor < 1e-3 else _SHARE_IF_COARSE
        still = self._the_same_again(inputs, call, self.now, share)
        moving = [x for x in inputs if watchable(x)]  # tokens can't be moved
        count = sum(x.numel() for x in moving)
        generator = torch.Generator().manual_seed(count)
        size = math.hypot(*(norm(x.abs()) for x in moving))
        epsilon = max((torch.finfo(x.dtype).eps for x in moving), default=0.0)
        scale = max(self._each, epsilon * size / math.sqrt(max(1, count)))
        for trial in range(_TRIALS if moving else 0):
            moved = [_moved(x, (1 + trial % 2) * scale, generator) if watchable(x) else x for x in inputs]
            # Beside a call without a move: a state that goes on with each call must not be taken for steepness.
            if distance(self.note.now(call(moved)), still, self.note.size) >= share * self.change:
                for _ in range(_AGREEMENTS):  # one by chance: of random factors a pair in some sixty is as close
                    self._the_same_again(inputs, call, still, share)
                self._explained()
                return
            still = self.note.now(call(inputs))
        raise RuntimeError(
            self._words(
                "Something that it reads was changed in between: a global, a closure, an object that an attribute holds."
            )
        )

    def _the_same_again(
        self, inputs: Sequence[Tensor], call: Callable[[Sequence[Tensor]], Tensor], before: Tensor, share: float
    ) -> Tensor:
        """Returns the fingerprint of its value on the same input once more.

        Raises:
            RuntimeError: it is another value.
        """
        found = self.note.now(call(inputs))
        if not distance(found, before, self.note.size) <= share / 2 * self.change:
            raise RuntimeError(
                self._words(
                    "It also differs from itself when called twice on one input: random numbers that are not PyTorch's, or a"
                    " state that no module holds."
                )
            )
        return found

    def _explained(self) -> None:
        self.explained = True
        known = _known.setdefault(self.note.module, _Steepness())
        known.explained += 1
        if known.explained >= _PATIENCE and self.input_error > 0:
            known.allowed = max(known.allowed, 2 * self.relative / self.input_error)

    def _words(self, why: str) -> str:
        forget(list(self.note.module.modules()))  # what was taken to be only read may have been written
        return (
            f"{self.note.name} gave another value when backward ran it again than it gave in forward: they differ by"
            f" {self.relative:.2g} of its norm, where rounding explains {self.note.allowed(self.input_error):.1g}, so the"
            f" gradient would be wrong. {why} Pass what it reads as chain(x, name=value), register it, or set strategy 'stored'"
        )


def _moved(x: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    wide = x.dtype if x.dtype in (torch.float64, torch.complex128, torch.complex64) else torch.float32
    move = torch.randn(x.shape, generator=generator, dtype=wide).to(x.device)
    return (x + scale * move).to(x.dtype)


def unseen() -> AbstractContextManager[Any]:
    """Inside, operations pass by who counts or changes operations."""
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return _past_every_mode()
    return _NOTHING


@contextmanager
def _past_every_mode() -> Iterator[None]:
    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield
