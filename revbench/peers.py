"""The chains by which libraries are compared: the same blocks, back-propagated by revbench or by another library.

A case names one as ``revbench.peers:chain(library=memcnn,kind=basic,blocks=9)``. Its strategies are ``stored``, plain
autograd of the same blocks, and ``reconstructed``, the library's way; ours has all of ours.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from revbench.backprop import ReversibleBlock, StrategyModule, pieces_of, reversible
from revbench.choices import CHAIN_KINDS, PEERS
from revbench.errors import UserError, unknown
from revbench.models.residual import ResidualFunction, initialise
from revbench.paper.couplings import parse_coupling

LIBRARIES = ("revbench", *PEERS)


class ChainNetwork(nn.Module):
    """A 3×3 convolution, a chain of reversible blocks, the mean of each channel, a linear layer.

    Shape: images ``(N, 3, H, W)`` to logits ``(N, 10)``.

    Args:
        blocks: of the chain.
        channels: of both halves together.
        bottleneck: F and G have three convolutions, the middle ones on a quarter of their channels.
        library: whose implementation reconstructs the activations.
        coupling: how F, G and the halves are put together; other libraries have additive ones.

    Raises:
        UserError: an unknown coupling, or one that a library has not.
    """

    def __init__(
        self,
        blocks: int,
        channels: int,
        *,
        bottleneck: bool = False,
        library: str = "revbench",
        coupling: str = "additive",
    ) -> None:
        super().__init__()
        half = channels // 2
        returned = 2 * half if parse_coupling(coupling).name == "affine" else half
        pairs = [
            (
                ResidualFunction(half, returned, bottleneck=bottleneck),
                ResidualFunction(half, returned, bottleneck=bottleneck),
            )
            for _ in range(blocks)
        ]
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        if library != "revbench" and coupling != "additive":
            raise UserError(f"coupling={coupling} is of library revbench; {library} is compared with additive blocks")
        chain = reversible(pairs, coupling=coupling) if library == "revbench" else PeerChain(library, pairs)
        self.chain: StrategyModule = chain
        self.head = nn.Linear(channels, 10)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(N, 10)`` of images ``(N, 3, H, W)``."""
        x = self.stem(images)
        if isinstance(self.chain, PeerChain):
            pooled = self.chain(x).mean((2, 3))
        else:
            pooled = torch.cat([half.mean((2, 3)) for half in self.chain(tuple(x.chunk(2, 1)))], 1)
        logits: Tensor = self.head(pooled)
        return logits


class PeerChain(StrategyModule):
    """A chain of additive couplings that another library reconstructs, as its documentation says it is used.

    Args:
        library: a name of `revbench.choices.PEERS`.
        pairs: F and G of each block.
    """

    def __init__(self, library: str, pairs: Sequence[tuple[nn.Module, nn.Module]]) -> None:
        super().__init__(("stored", "reconstructed"), "reconstructed", "kept")
        self.library = library
        self.blocks = nn.ModuleList(ReversibleBlock(f, g) for f, g in pairs)
        # In a list, so that its parameters, which are those of the blocks, are not registered twice.
        self._core = [_core(library, pairs)]

    def forward(self, x: Tensor) -> Tensor:
        """Maps one tensor to one, as the libraries want it; the halves are those of dimension 1."""
        if self.strategy == "stored" or not torch.is_grad_enabled():
            halves = x.chunk(2, 1)
            for block in self.blocks:
                halves = block(*halves)
            return torch.cat(tuple(halves), 1)
        y: Tensor = self._core[0](x)
        return y

    def pieces(self) -> list[nn.Module]:
        """F and G of each block."""
        return pieces_of(self.blocks)


def _core(library: str, pairs: Sequence[tuple[nn.Module, nn.Module]]) -> nn.Module:
    if library not in PEERS:
        raise unknown("library", library, LIBRARIES)
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{library} is not installed; it is of the extra peers (in a checkout: pip install .[peers])")
    core: nn.Module
    if library == "revtorch":
        import revtorch

        core = revtorch.ReversibleSequence(
            nn.ModuleList(revtorch.ReversibleBlock(f, g, split_along_dim=1) for f, g in pairs)
        )
    elif library == "revlib":
        import revlib

        core = revlib.ReversibleSequential(*(module for pair in pairs for module in pair))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what it calls of PyTorch is deprecated
            import memcnn

        core = nn.Sequential(
            *(
                memcnn.InvertibleModuleWrapper(
                    memcnn.AdditiveCoupling(Fm=f, Gm=g), keep_input=False, keep_input_inverse=False
                )
                for f, g in pairs
            )
        )
    return core


def chain(
    library: str = "revbench", kind: str = "basic", blocks: int = 9, tripwire: bool = True, coupling: str = "additive"
) -> ChainNetwork:
    """Returns the network of a case.

    Args:
        library: ``revbench``, ``revtorch``, ``revlib`` or ``memcnn``.
        kind: ``basic``: 64 channels, F and G are BN-ReLU-3×3 twice; ``bottleneck``: 128 channels, BN-ReLU-1×1, 3×3, 1×1.
        blocks: of the chain.
        tripwire: of our engine, so that its cost can be measured.
        coupling: how F, G and the halves are put together.

    Raises:
        UserError: an unknown name, or a library that is not installed.
    """
    if kind not in CHAIN_KINDS:
        raise unknown("kind of chain", kind, CHAIN_KINDS)
    network = ChainNetwork(
        blocks, 64 if kind == "basic" else 128, bottleneck=kind == "bottleneck", library=library, coupling=coupling
    )
    network.chain.tripwire = tripwire
    return network
