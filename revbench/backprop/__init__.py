"""How a chain of blocks is back-propagated: the strategies, for anybody's blocks."""

from revbench.backprop.chain import ReversibleBlock, ReversibleChain, propagate, reversible
from revbench.backprop.recording import is_recomputing
from revbench.backprop.segments import segment
from revbench.backprop.strategies import NONREVERSIBLE, STRATEGIES, Nonreversible, Strategy, StrategyModule

__all__ = [
    "NONREVERSIBLE", "STRATEGIES", "Nonreversible", "ReversibleBlock", "ReversibleChain", "Strategy", "StrategyModule",
    "is_recomputing", "propagate", "reversible", "segment",
]  # fmt: skip
