"""What a coupling is: by which half steps a block of functions takes its streams further, of two kinds.

`Split`: of as many streams as a block has functions each function changes one, in turn. `Whole`: of two streams of the whole each
function makes a further state or velocity; such a chain can begin from one tensor.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from revbench.backprop.rules import Rule
from revbench.paper.couplings import NamedCoupling

State = tuple[Tensor, ...]


class HalfStep(NamedTuple):
    """One half step: the streams ``(b, a…)`` become ``(a…, out)``.

    Attributes:
        function: called with the streams a.
        rule: joins its value to b.
        name: within its block, e.g. ``F``.
        argument: whose arguments the function is called with beside the streams: 0 of F's, 1 of G's; None of no one's.
    """

    function: nn.Module
    rule: Rule
    name: str
    argument: int | None


class Coupling(abc.ABC):
    """How the functions of a block and its streams are put together."""

    @property
    @abc.abstractmethod
    def named(self) -> NamedCoupling:
        """Its name, as cases and the command line write it."""

    @property
    @abc.abstractmethod
    def splits(self) -> bool:
        """Whether one tensor that enters is split among the streams; else both are made of the whole."""

    @property
    def keeps_first(self) -> bool:
        """Whether what the first function is given is kept as it is, and put back at the end of the way back."""
        return False

    @abc.abstractmethod
    def streams(self, functions: int) -> int:
        """Returns how many streams blocks of so many functions have, at least 2.

        Args:
            functions: of each block.
        """

    @abc.abstractmethod
    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        """Returns those of one block.

        Args:
            functions: of the block, in the order in which they are called. Each is called with the streams that its half step
                does not change, all of one shape, and returns what the rule's `shape_of_value` says.
            starts: whether the streams are those of `start`.
        """

    @abc.abstractmethod
    def start(self, x: Tensor, dim: int, streams: int) -> State:
        """Returns the streams that one tensor becomes, all of one shape and of its dtype.

        Args:
            x: of any shape; where the coupling `splits`, its size along `dim` is a multiple of `streams`.
            dim: along which it is split.
            streams: how many.
        """

    @abc.abstractmethod
    def end(self, state: State, dim: int) -> Tensor:
        """Returns the tensor that the streams become: of the shape of what `start` was given.

        Args:
            state: the streams.
            dim: along which they are put together, where the coupling `splits`.
        """


class Split(Coupling):
    """Of as many streams as functions: ``y_i = T(x_i; F_i(x_{i+1}, …, x_n, y_1, …, y_{i-1}))``."""

    @property
    def splits(self) -> bool:
        """True."""
        return True

    def streams(self, functions: int) -> int:
        """Returns one for each function."""
        return functions

    @abc.abstractmethod
    def _rule(self, index: int) -> Rule:
        """The rule of a block's function of this number."""

    def half_steps(self, functions: Sequence[nn.Module], *, starts: bool = False) -> list[HalfStep]:
        """Returns one for each function."""
        names = function_names(len(functions))
        return [HalfStep(f, self._rule(i), name, i) for i, (f, name) in enumerate(zip(functions, names, strict=True))]

    def start(self, x: Tensor, dim: int, streams: int) -> State:
        """Returns the parts along `dim`."""
        return x.chunk(streams, dim)

    def end(self, state: State, dim: int) -> Tensor:
        """Returns them put together along `dim`."""
        return torch.cat(state, dim)


@dataclass(frozen=True)
class Whole(Coupling):
    """Of two streams of the whole; a block's functions are used one after the other.

    Attributes:
        keep_first: keep the later of the streams that enter as it is. It is what the chain's first function is given, which
            is the furthest on the way back.
    """

    keep_first: bool = field(default=True, kw_only=True)

    @property
    def splits(self) -> bool:
        """False."""
        return False

    @property
    def keeps_first(self) -> bool:
        """As it was asked for."""
        return self.keep_first

    def streams(self, functions: int) -> int:
        """Returns 2."""
        return 2

    def start(self, x: Tensor, dim: int, streams: int) -> State:
        """Returns the tensor twice."""
        return x, x

    def end(self, state: State, dim: int) -> Tensor:
        """Returns the later of the states."""
        return state[-1]


def function_names(count: int) -> list[str]:
    """Returns how the functions of a block are called: F and G, of more than two F1, F2, …."""
    return ["F", "G"][:count] if count <= 2 else [f"F{i + 1}" for i in range(count)]
