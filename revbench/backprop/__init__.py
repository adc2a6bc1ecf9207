"""How a chain of blocks is back-propagated: the strategies, for anybody's blocks."""

from revbench.backprop.block import ReversibleBlock, pieces_of
from revbench.backprop.certificate import Certificate, Difference
from revbench.backprop.chain import ReversibleChain, reversible
from revbench.backprop.compiling import compile_pieces
from revbench.backprop.coupling import Coupling
from revbench.backprop.couplings import (
    Additive,
    Affine,
    Hamiltonian,
    Leapfrog,
    Midpoint,
    Momentum,
    coupling_of,
)
from revbench.backprop.plain import plain_container
from revbench.backprop.propagation import propagate
from revbench.backprop.recording import is_recomputing
from revbench.backprop.segments import segment
from revbench.backprop.sequence import UnitSequence, sequential
from revbench.backprop.strategy_module import StrategyModule

__all__ = [
    "Additive",
    "Affine",
    "Certificate",
    "Coupling",
    "Difference",
    "Hamiltonian",
    "Leapfrog",
    "Midpoint",
    "Momentum",
    "ReversibleBlock",
    "ReversibleChain",
    "StrategyModule",
    "UnitSequence",
    "compile_pieces",
    "coupling_of",
    "is_recomputing",
    "pieces_of",
    "plain_container",
    "propagate",
    "reversible",
    "segment",
    "sequential",
]
