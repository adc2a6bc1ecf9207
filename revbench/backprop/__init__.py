"""How a chain of blocks is back-propagated: the strategies, for anybody's blocks."""

from revbench.backprop.chain import ReversibleBlock, ReversibleChain, pieces_of, propagate, reversible
from revbench.backprop.recording import is_recomputing
from revbench.backprop.segments import segment
from revbench.backprop.strategies import StrategyModule

__all__ = [
    "ReversibleBlock",
    "ReversibleChain",
    "StrategyModule",
    "is_recomputing",
    "pieces_of",
    "propagate",
    "reversible",
    "segment",
]
