"""The copies of a network that one measurement runs, and how a strategy is set on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from revbench.backprop import StrategyModule
from revbench.case import Backpropagation
from revbench.errors import UserError
from revbench.numerics.reference import copied

SetStrategy = Callable[[nn.Module, str], None]


def set_strategies(model: nn.Module, strategy: str) -> None:
    """Set a strategy on every `revbench.reversible` inside a model.

    Raises:
        UserError: there is none.
    """
    chains = [module for module in model.modules() if isinstance(module, StrategyModule)]
    if not chains:
        raise UserError(
            f"{type(model).__name__} has no reversible block that revbench knows (no revbench.reversible inside); for blocks of"
            " your own give set_strategy, a function of (model, strategy)"
        )
    for chain in chains:
        if strategy == "stored":
            chain.backpropagation = Backpropagation("stored")
        else:
            chain.strategy = strategy  # type: ignore[assignment]


@dataclass(frozen=True)
class Networks:
    """Three copies of a network, with the same weights, buffers and random numbers to come.

    Attributes:
        exact: in float64, under `stored`.
        plain: in the arithmetic that is measured, under `stored`.
        ours: in it, under the strategy that is measured.
        chains: what of it has a strategy of ours.
        name: of the strategy.
        are_twins: the strategy is not ours, and somebody's own function set it: whether the two are one function is to be seen.
    """

    exact: nn.Module
    plain: nn.Module
    ours: nn.Module
    chains: Sequence[StrategyModule]
    name: str
    are_twins: bool

    @classmethod
    def of(cls, model: nn.Module, strategy: str | None, set_strategy: SetStrategy) -> Networks:
        """Copies of a model; arguments and errors as of `compare_gradients`."""
        exact, plain, ours = (copied(model) for _ in range(3))
        chains = [module for module in ours.modules() if isinstance(module, StrategyModule)]
        theirs = set_strategy is not set_strategies
        if strategy is not None:
            set_strategy(ours, strategy)
        elif theirs:
            raise UserError("set_strategy is given, but no strategy to set")
        name = strategy or next((c.strategy for c in chains if c.strategy != "stored"), "stored")
        if chains or strategy is not None:
            set_strategy(exact, "stored")
            set_strategy(plain, "stored")
        return cls(exact.double(), plain, ours, chains, name, theirs and strategy is not None and strategy != "stored")
