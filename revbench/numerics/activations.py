"""How far reconstructed activations are from those that the forward pass had."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from revbench.errors import first_line
from revbench.observing.calling import call


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
    """Returns the reconstruction errors of blocks that are not ours but have ``forward(x1, x2)`` and ``inverse(y1, y2)``.

    One forward pass keeps what enters and leaves each such block. Then the way back is gone with `inverse`, block after
    block from the end of each run of blocks that feed each other, and what comes out is compared with what was kept.
    Dropout is off: an inverse by itself can't know the mask.

    Args:
        model: under `stored`, in training mode; its dropouts are switched off, its buffers may change.
        inputs: its first argument.

    Returns:
        By the name of the block, in the order of forward; and those that were left out, with the reason.
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
    seen: list[tuple[nn.Module, tuple[Tensor, ...], tuple[Tensor, ...]]] = []

    def keep(module: nn.Module, entered: tuple[Any, ...], left: Any) -> None:
        if _is_pair(entered) and _is_pair(left):
            seen.append((module, tuple(x.clone() for x in entered), tuple(y.clone() for y in left)))
        else:
            left_out[blocks[module]] = "it does not take two tensors and return two"

    handles = [block.register_forward_hook(keep) for block in blocks]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, ActivationError] = {}
    back: tuple[Tensor, ...] = ()
    fed: tuple[Tensor, ...] = ()  # what entered the block after this one
    for block, entered, left in reversed(seen):
        linked = len(fed) == 2 and all(map(torch.equal, fed, left))
        inverse: Any = block.inverse
        try:
            back = tuple(inverse(*(back if linked else left)))
            if not _is_pair(back):
                raise TypeError("it does not return two")
        except Exception as error:  # an inverse of another form, or none
            left_out[blocks[block]] = f"its inverse can't be called with two tensors: {first_line(error)}"
            back, fed = entered, entered
            continue
        found[blocks[block]] = _joined([_norms(b, x) for b, x in zip(back, entered, strict=True)])
        fed = entered
    called = {*found, *left_out}
    left_out |= {name: "it was not called" for name in blocks.values() if name not in called}
    return dict(reversed(found.items())), left_out


def _is_pair(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) == 2 and all(isinstance(value, Tensor) for value in values)
