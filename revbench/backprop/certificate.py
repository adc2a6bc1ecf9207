"""Whether a gradient was computed from the stored activations' bits, for 16 bytes a half step.

Forward takes a checksum of every activation that backward will reconstruct; backward takes it again of what it
reconstructed. Sums of 64 bits that are equal certify equal bits. The first unequal one names the block. Checksums of what the
functions gave, in forward and again, tell rounding from a function that changed; a further call finds one that is not
deterministic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF


@dataclass(frozen=True)
class Difference:
    """The first reconstructed activation that is not the stored one.

    Attributes:
        name: the half step that it enters, e.g. ``block 3's G``.
        net_ulps: the sum over all elements of the change in magnitude, in units in the last place, modulo 2 to the
            32nd: changes up and down cancel, so it says of which order the difference is, and no more.
        elements: how many numbers the activation has.
        value_changed: whether the half step's function itself gave other bits than in forward, where all that came before on
            the way back was equal; else the difference is the rounding of ``(b + m(a)) - m(a)``.
    """

    name: str
    net_ulps: int
    elements: int
    value_changed: bool


@dataclass(frozen=True)
class Certificate:
    """What backward found when it compared the reconstructed activations with the stored ones.

    Attributes:
        compared: activations that were compared: one a half step, but for the first of each chain, which no gradient needs.
        identical: those of them whose bits were equal.
        difference: the first on the way back that was not equal; None if there is none.
        not_deterministic: the half steps whose function, called twice on one input, gave unequal bits. Looked
            for where an activation differs.
    """

    compared: int
    identical: int
    difference: Difference | None
    not_deterministic: tuple[str, ...]

    def __str__(self) -> str:
        if self.difference is None:
            return f"this gradient was computed from activations bit-identical to the stored ones ({self.compared} half steps)"
        d = self.difference
        if self.not_deterministic:
            cause = f"not deterministic: {', '.join(self.not_deterministic)}"
        elif d.value_changed:
            cause = (
                "its function gave other bits than in forward on the same input: something that it reads was changed"
            )
        else:
            cause = "its function gave the bits of forward, so this is the rounding of (b + m(a)) - m(a)"
        return (
            f"{self.identical} of {self.compared} activations were bit-identical to the stored ones; the first that was not"
            f" enters {d.name} and differs by a net {d.net_ulps:+,} units in the last place over {d.elements:,} elements; {cause}"
        )


class Witness(Protocol):
    """Sees each activation that enters a half step, and again when it has been reconstructed."""

    def note(self, name: str, half: Tensor) -> None:
        """Is shown in forward the activation that enters a half step, of any shape."""

    def note_value(self, name: str, value: Tensor) -> None:
        """Is shown in forward what the half step's function gave."""

    def digest_residual(self, value: Tensor) -> Any:
        """Is shown in backward what the function gave when it ran again, before that may be written over."""

    def compare(self, name: str, half: Tensor, weighed: Any, call_again: Callable[[], Tensor]) -> None:
        """Is shown in backward the activation of `note`, reconstructed.

        Args:
            name: of the half step, as in `note`.
            half: the activation.
            weighed: what `digest_residual` returned.
            call_again: calls the half step's function on the same input.
        """


class Notary:
    """The witness that certifies: takes checksums in one forward call and compares them in its backward pass."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._values: dict[str, Tensor] = {}
        self._equal: dict[str, bool] = {}
        self._difference: Difference | None = None
        self._not_deterministic: dict[str, None] = {}

    def note(self, name: str, half: Tensor) -> None:
        """Takes the checksum of what `Witness.note` is shown."""
        self._sums[name] = checksum(half)

    def note_value(self, name: str, value: Tensor) -> None:
        """Takes the checksum of what `Witness.note_value` is shown."""
        self._values[name] = checksum(value)

    def digest_residual(self, value: Tensor) -> Tensor:
        """Returns the checksum of what the function gave when it ran again."""
        return checksum(value)

    def compare(self, name: str, half: Tensor, weighed: Tensor, call_again: Callable[[], Tensor]) -> None:
        """Compares the checksums of what `Witness.compare` is shown."""
        before, now = int(self._sums[name]), int(checksum(half))
        self._equal[name] = before == now
        if before == now:
            return
        if not torch.equal(weighed, checksum(call_again())):
            self._not_deterministic[name] = None
        if self._difference is None:
            net = ((now & _WORD) - (before & _WORD)) & _WORD
            net -= (net >> 31) << 32  # as a signed number of 32 bits
            value_changed = not torch.equal(weighed, self._values[name])
            self._difference = Difference(name, net, half.numel(), value_changed)

    def certificate(self) -> Certificate | None:
        """Returns what was found; None before a backward pass."""
        if not self._equal:
            return None
        equal = sum(self._equal.values())
        return Certificate(len(self._equal), equal, self._difference, tuple(self._not_deterministic))


@torch.no_grad()
def checksum(tensor: Tensor) -> Tensor:
    """Returns a checksum of a tensor's bits that does not depend on the order in which a device adds.

    The lower 32 bits are the sum of the elements' bit patterns modulo 2 to the 32nd; their difference between two
    tensors is, signs being equal, the net change of magnitude in units in the last place. The upper 32 bits are
    the sum of a mixing function of the patterns (multiplication and shifts, as in MurmurHash3's finaliser,
    Appleby 2011), times an odd number that depends on the place: it tells apart changes that cancel in the first
    sum, and elements that change places. Both are sums of integers, hence exact and the same in any order.

    Args:
        tensor: floating point or complex, any shape, strides and device; the strides make no difference.

    Returns:
        A tensor of no dimensions, int64: 8 bytes.
    """
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    words = {8: torch.int64, 4: torch.int32, 2: torch.int16}[real.element_size()]
    patterns = real.detach().view(words)
    if words == torch.int16:
        patterns = patterns.to(torch.int32)
    total = patterns.sum(dtype=patterns.dtype)
    factor, half = (-7046029254386353131, 32) if words == torch.int64 else (-1640531527, 15)  # 2**bits / golden ratio
    mixed = patterns * factor
    mixed ^= mixed >> half
    mixed *= -2048144777
    mixed ^= mixed >> half
    mixed *= torch.arange(1, 2 * mixed.numel(), 2, dtype=mixed.dtype, device=mixed.device).view(mixed.shape)
    return (mixed.sum(dtype=mixed.dtype).to(torch.int64) << 32) | (total.to(torch.int64) & _WORD)
