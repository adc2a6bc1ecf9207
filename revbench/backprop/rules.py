"""How a half step joins what its function gives to a stream, and how that is undone: the seam of every coupling.

A half step takes streams ``(b, a1, …, ak)`` to ``(a1, …, ak, out)``, where ``out = T(b; a, m(a))`` and T can be inverted in b as
long as a is known. A rule is T and its inverse; what else the engine needs (the gradient through T, how an error passes it)
follows from the two. Another representation of the streams, one of fixed-point numbers whose subtraction is exact, is a
rule as well.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from revbench.choices import AFFINE_SCALES, AffineScale
from revbench.errors import UserError, unknown

Streams = Sequence[Tensor]


class Rule(abc.ABC):
    """A half step's map and its inverse: differentiable functions of what they are given, and of nothing else."""

    @abc.abstractmethod
    def forward(self, b: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``out``, of the shape and dtype of `b`.

        Args:
            b: the stream that is changed.
            a: the others, the one that was changed last at the end.
            value: what the function gave for them, of `shape_of_value`.
            into: if given, the result may be written into it, and nothing is to be differentiated.

        An error that this raises reaches the caller of the chain as it is.
        """

    @abc.abstractmethod
    def inverse(self, out: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns the `b` that `forward` was given; arguments as there."""

    @property
    def writes_in_steps(self) -> bool:
        """Whether `inverse` takes less memory if it is given a tensor to write into, if only a new one."""
        return False

    def shape_of_value(self, shape: torch.Size) -> tuple[int, ...]:
        """Returns which shape the function's value must have for a stream of this shape.

        Raises:
            ValueError: no function's value fits such a stream.
        """
        return tuple(shape)

    def is_invertible(self, value: Tensor) -> bool:
        """Tells whether the map can be undone for what a function gave."""
        return True


@dataclass(frozen=True)
class Linear(Rule):
    """``out = keep b + take a + scale m(a)``, where a is the stream that was changed last.

    Additive coupling with 1, 0, 1 (Gomez et al. 2017, equation 6); momentum keeps a share (Sander et al. 2021), leapfrog
    keeps -1 and takes 2 (Chang et al. 2018).

    What rounding takes of the sum, the inverse does not bring back: half a unit in the last place each way, divided by `keep`.

    Attributes:
        keep: not 0, or nothing of b is left.
        take, scale: any finite numbers.

    Raises:
        UserError: other numbers.
    """

    keep: float = 1.0
    take: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.keep == 0 or not all(map(math.isfinite, (self.keep, self.take, self.scale))):
            raise UserError(f"{self} can't be inverted: keep must not be 0, and each must be a finite number")

    @property
    def only_adds(self) -> bool:
        """Whether it is ``b + scale m(a)``."""
        return self.keep == 1.0 and self.take == 0.0

    @property
    def writes_in_steps(self) -> bool:
        """All but addition alone."""
        return not self.only_adds

    def forward(self, b: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``keep b + take a + scale m(a)``."""
        if self.only_adds:
            return _plus(b, value, self.scale, into)
        out = b * self.keep
        if self.take:
            out = _plus(out, a[-1], self.take)
        return _plus(out, value, self.scale)

    def inverse(self, out: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``(out - scale m(a) - take a) / keep``."""
        b = _plus(out, value, -self.scale, into)
        if self.take:
            b = _plus(b, a[-1], -self.take, into)
        return b if self.keep == 1.0 else torch.div(b, self.keep, out=into)


def is_linear(rule: Rule) -> TypeGuard[Linear]:
    """Tells whether a rule is `Linear` itself: one that is made of it may do more."""
    return type(rule) is Linear


def _plus(b: Tensor, value: Tensor, scale: float, into: Tensor | None = None) -> Tensor:
    if scale == -1.0:
        return torch.sub(b, value, out=into)
    return torch.add(b, value, out=into) if scale == 1.0 else torch.add(b, value, alpha=scale, out=into)


_SCALES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda raw: raw.tanh().exp(),
    "sigmoid": lambda raw: (raw + 2).sigmoid(),
    "exp": torch.exp,
}


@dataclass(frozen=True)
class Affine(Rule):
    """``out = s(a) b + t(a)``, where ``m(a)`` is the raw scale and the shift t one after the other (Dinh et al. 2017).

    The inverse divides by s: where that is small it grows every error, which an additive coupling does not (Behrmann et al.
    2021, section 3). A bounded scale bounds that.

    Attributes:
        dim: along which a function's value has twice the size of the stream.
        scale: from the raw scale r to s: ``tanh``, ``exp(tanh(r))`` between 1/e and e; ``sigmoid``, ``sigmoid(r + 2)`` (Kingma
            and Dhariwal 2018); ``exp``, which nothing bounds (Dinh et al. 2017).

    Raises:
        UserError: another scale.
    """

    dim: int = 1
    scale: AffineScale = "tanh"

    def __post_init__(self) -> None:
        if self.scale not in _SCALES:
            raise unknown("scale of an affine coupling", self.scale, AFFINE_SCALES)

    def parts(self, value: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns s and t, each of the stream's shape, in the stream's dtype at least.

        Autocast changes the dtype of some functions and not of others, and backward is outside of it.
        """
        raw, shift = value.to(torch.promote_types(value.dtype, dtype)).chunk(2, self.dim)
        return _SCALES[self.scale](raw), shift

    def forward(self, b: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``s b + t``."""
        scale, shift = self.parts(value, b.dtype)
        return b * scale + shift

    def inverse(self, out: Tensor, a: Streams, value: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Returns ``(out - t) / s``."""
        scale, shift = self.parts(value, out.dtype)
        return torch.div(torch.sub(out, shift, out=into), scale, out=into)

    def shape_of_value(self, shape: torch.Size) -> tuple[int, ...]:
        """Returns the shape with twice the size along `dim`.

        Raises:
            ValueError: the stream has no such dimension.
        """
        sizes = list(shape)
        if not -len(sizes) <= self.dim < len(sizes):
            raise ValueError(
                f"a stream of shape {tuple(shape)} has no dimension {self.dim} for scale and shift; give another split_dim"
            )
        sizes[self.dim] *= 2
        return tuple(sizes)

    def is_invertible(self, value: Tensor) -> bool:
        """Tells whether every scale is a number that is not below the arithmetic's epsilon; on a GPU it is waited for."""
        scale, _ = self.parts(value, value.dtype)
        return bool((scale.isfinite() & (scale.abs() >= torch.finfo(scale.dtype).eps)).all())
