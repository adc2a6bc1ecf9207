"""What all networks of the catalogue are: stem, trunk (a sequence of units), head.

The trunk is what a strategy back-propagates; stem and head follow ``nonreversible``.
"""

from __future__ import annotations

import abc
from typing import Generic, TypeVar

from torch import Tensor, nn

from revbench.backprop import StrategyModule, pieces_of, propagate, segment
from revbench.choices import Nonreversible, Strategy
from revbench.paper.architectures import Architecture

State = tuple[Tensor, ...]
A = TypeVar("A", bound=Architecture)


class Network(StrategyModule, abc.ABC, Generic[A]):
    """A network of the catalogue with settable strategy.

    Args:
        architecture: what it is.
        strategy: of the backward pass; ``reconstructed`` needs reversible blocks.
        nonreversible: whether stem, head and the units that change the shape keep their activations or
            are recomputed. Under ``checkpointed`` and ``recursive`` the trunk is recomputed anyway.
        stem: from the inputs to what the streams are made of.
        trunk: units from streams to streams.
        head: from the joined streams to the outputs.

    Raises:
        UserError: a strategy that the network does not support.
    """

    def __init__(
        self, architecture: A, strategy: Strategy, nonreversible: Nonreversible, stem: nn.Module, trunk: nn.ModuleList,
        head: nn.Module,
    ) -> None:  # fmt: skip
        self.name = architecture.name
        super().__init__(architecture.strategies, strategy, nonreversible)
        self.architecture = architecture
        self.stem, self.trunk, self.head = stem, trunk, head

    @abc.abstractmethod
    def split(self, x: Tensor) -> State:
        """Returns the streams that begin as what leaves the stem."""

    @abc.abstractmethod
    def join(self, state: State) -> Tensor:
        """Returns what enters the head, of the streams that leave the trunk."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns logits; shapes are those of the family."""
        state = self.split(self._recomputed_or_kept(self.stem, inputs))
        state = propagate(
            list(self.trunk), state, owner=self, way=self.backpropagation, witness=self._next_witness(),
            tripwire=self.tripwire,
        )  # fmt: skip
        return self._recomputed_or_kept(self.head, self.join(state))

    def pieces(self) -> list[nn.Module]:
        """Stem, F and G of each reversible block, the other units, head."""
        return pieces_of([self.stem, *self.trunk, self.head])

    def _recomputed_or_kept(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.nonreversible == "recomputed":
            (out,) = segment([module], (x,), tripwire=self.tripwire)
            return out
        kept: Tensor = module(x)
        return kept
