"""How far reconstructed activations are from those that the forward pass had."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from revbench.errors import first_line
from revbench.observing.calling import call

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class ActivationError:
    """Says how far the activations that enter one block were off, both halves where both were reconstructed.

    Attributes:
        rms: ``|found - stored| / |stored|`` in the Euclidean norm.
        largest: ``max |found - stored| / max |stored|``.
    """

    rms: float
    largest: float


class Reconstructions:
    """The witness of one chain: keeps the activations of forward and compares those of backward (float64 norms).

    It keeps what `reconstructed` does without, so it is for measuring and not for training.
    """

    def __init__(self) -> None:
        self._kept: dict[str, list[Tensor]] = {}  # a chain may be called several times in one forward pass
        self._found: dict[int, list[tuple[float, float, float, float]]] = {}

    def note(self, name: str, half: Tensor) -> None:
        """Keep a copy in forward."""
        self._kept.setdefault(name, []).append(half.detach().clone())

    def note_value(self, name: str, value: Tensor) -> None:
        """Does not look at what the function gave in forward."""

    def digest_residual(self, value: Tensor) -> None:
        """Does not look at what the function gave in backward."""

    def compare(self, name: str, half: Tensor, weighed: Any, call_again: Callable[[], Tensor]) -> None:
        """Take the norms of the difference in backward."""
        block = re.fullmatch(r"block (\d+)'s .+", name)
        assert block is not None
        self._found.setdefault(int(block[1]), []).append(_norms(half, self._kept[name].pop()))

    def errors(self) -> dict[int, ActivationError]:
        """Returns the errors by the number of the block, in order; blocks none of whose activations were reconstructed are not
        there."""
        return {block: _joined(self._found[block]) for block in sorted(self._found)}


def _norms(found: Tensor, stored: Tensor) -> tuple[float, float, float, float]:
    """Returns sums of squares, and largest magnitudes, of the difference and of what was stored."""
    stored = stored.double()
    difference = found.detach().double() - stored
    return (
        difference.square().sum().item(), stored.square().sum().item(),
        difference.abs().max().item(), stored.abs().max().item(),
    )  # fmt: skip


def _joined(halves: list[tuple[float, float, float, float]]) -> ActivationError:
    squares, of_squares, largest, of_largest = zip(*halves, strict=True)
    rms = math.sqrt(sum(squares) / sum(of_squares)) if sum(of_squares) > 0 else math.nan
    return ActivationError(rms, max(largest) / max(of_largest) if max(of_largest) > 0 else math.nan)


@torch.no_grad()
def round_trips(model: nn.Module, inputs: Any) -> tuple[dict[str, ActivationError], dict[str, str]]:
    """Returns the reconstruction errors of blocks that are not ours but have a ``forward`` of tensors and an ``inverse``.

    One forward pass keeps what enters and leaves each such block. Then the way back is gone with `inverse`, block after
    block from the end of each run of blocks that feed each other, and what comes out is compared with what was kept.
    Dropout is off: an inverse by itself can't know the mask.

    Args:
        model: under `stored`, in training mode; its dropouts are switched off, its buffers may change.
        inputs: its first argument.

    Returns:
        By the name of the block, in the order of forward; and those that were left out, with the reason. A block takes and
        returns one tensor, or several one by one or in one tuple or list; its inverse takes what it returned, likewise. What
        else goes in or comes out (edges of a graph, a mask by its name, a log determinant) is handed on, or left alone.
    """
    left_out: dict[str, str] = {}
    invertible = {name: module for name, module in model.named_modules() if callable(getattr(module, "inverse", None))}
    blocks = {
        module: name
        for name, module in invertible.items()
        if not any(n != name and n.startswith(f"{name}." if name else "") for n in invertible)
    }
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    seen: list[_Passed] = []

    def keep(module: nn.Module, entered: tuple[Any, ...], named: dict[str, Any], left: Any) -> None:
        passed = _Passed.of(module, entered, named, left)
        if passed is None:
            left_out[blocks[module]] = (
                "it does not take and return tensors, as many floating-point ones as it was given"
            )
        else:
            seen.append(passed)

    handles = [block.register_forward_hook(keep, with_kwargs=True) for block in blocks]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, ActivationError] = {}
    back: State = ()
    fed: State = ()  # what entered the block after this one
    for passed in reversed(seen):
        name = blocks[passed.block]
        linked = len(fed) == len(passed.left) and all(map(_equal, fed, passed.left))
        try:
            back = passed.back(back if linked else passed.left)
        except Exception as error:  # an inverse of another form, or none
            left_out[name] = f"its inverse can't be called with what it returned: {first_line(error)}"
            fed = ()
            continue
        found[name] = _joined([_norms(b, x) for b, x in zip(back, passed.entered, strict=True)])
        fed = passed.entered
    called = {*found, *left_out}
    left_out |= {name: "it was not called" for name in blocks.values() if name not in called}
    return dict(reversed(found.items())), left_out


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


@dataclass(frozen=True)
class _Passed:
    """One call of a block.

    Attributes:
        block: that was called.
        entered, left: copies of its floating-point tensors.
        others: what else it was given.
        named: what it was given by name.
        in_one: whether the tensors were given in one tuple or list.
    """

    block: nn.Module
    entered: State
    left: State
    others: tuple[Any, ...]
    named: Mapping[str, Any]
    in_one: bool

    @classmethod
    def of(cls, block: nn.Module, entered: tuple[Any, ...], named: Mapping[str, Any], left: Any) -> _Passed | None:
        """Returns the call; None if it is of another form."""
        in_one = len(entered) > 0 and isinstance(entered[0], (tuple, list))
        given = _streams(entered[0] if in_one else entered)
        outputs = _streams(left[0] if isinstance(left, tuple) and left and isinstance(left[0], (tuple, list)) else left)
        outputs = outputs[: len(given)]
        if not given or [y.shape.numel() for y in outputs] != [x.shape.numel() for x in given]:
            return None
        others = entered[1:] if in_one else entered[len(given) :]
        return cls(block, tuple(x.clone() for x in given), tuple(y.clone() for y in outputs), others, named, in_one)

    def back(self, streams: State) -> State:
        """Returns what the inverse makes of these.

        Raises:
            TypeError: other things than it was given.
        """
        inverse: Any = self.block.inverse
        given = tuple(y.clone() for y in streams)  # some free what they are given
        named = {name: value for name, value in self.named.items() if _takes(inverse, name)}
        args = (list(given), *self.others) if self.in_one else (*given, *self.others)
        made = inverse(*args, **named)
        found = _streams(made[0] if isinstance(made, tuple) and made and isinstance(made[0], (tuple, list)) else made)
        found = found[: len(self.entered)]
        if [x.shape for x in found] != [x.shape for x in self.entered]:
            raise TypeError(f"it returns {len(found)} tensors of other shapes")
        return found


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Tells whether a function has an argument of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    return name in parameters or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())


def _streams(values: Any) -> State:
    """Returns the floating-point tensors that something is or begins with."""
    found: list[Tensor] = []
    for value in (values,) if isinstance(values, Tensor) else values if isinstance(values, (tuple, list)) else ():
        if not (isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0):
            break
        found.append(value)
    return tuple(found)
