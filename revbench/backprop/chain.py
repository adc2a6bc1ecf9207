"""Chains of reversible blocks over anybody's functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop.arguments import ChainArguments, OfEachBlock
from revbench.backprop.block import ReversibleBlock, State, is_reversible, pieces_of
from revbench.backprop.coupling import Coupling
from revbench.backprop.couplings import ADDITIVE, coupling_of
from revbench.backprop.half_step import reconstructed
from revbench.backprop.inputs import dense, stream_dtype, transformed
from revbench.backprop.propagation import arguments_of_units, half_steps_of, propagate
from revbench.backprop.strategy_module import StrategyModule
from revbench.choices import STRATEGIES, Strategy
from revbench.errors import UserError

Streams = Tensor | tuple[Tensor, ...]


class ReversibleChain(StrategyModule):
    """A chain of reversible blocks; see `reversible`."""

    def __init__(
        self, blocks: Sequence[Sequence[nn.Module]], *, split_dim: int, strategy: Strategy, coupling: Coupling
    ) -> None:
        super().__init__(STRATEGIES, strategy, "kept")
        self.blocks = nn.ModuleList(ReversibleBlock(*functions, coupling=coupling) for functions in blocks)
        self.split_dim = split_dim
        self.coupling = coupling
        self.streams = coupling.streams(len(blocks[0])) if blocks else 2

    def forward(
        self,
        x: Streams,
        *args: Any,
        f_kwargs: OfEachBlock = None,
        g_kwargs: OfEachBlock = None,
        **kwargs: Any,
    ) -> Streams:
        """Run the chain.

        Args:
            x: one tensor, or the streams as a tuple. One tensor is split evenly along `split_dim`; couplings of two streams of
                the whole begin both from it and return the last state.
            args: what every function is called with after the streams: masks, contexts, positions. Tensors among
                them that need gradient get theirs; tuples, lists and dicts may be nested.
            f_kwargs: further keyword arguments for each block's first function: a dict, or a list with one for each block.
            g_kwargs: the same for each block's second function.
            kwargs: as `args`, by keyword.

        Returns:
            The same kind as `x`, of the same shape.

        Raises:
            TypeError: `x` is neither a tensor nor a tuple of as many tensors as there are streams.
            ValueError: streams of unlike shape, dtype or device; a size along `split_dim` that can't be split, no such dimension;
                `g_kwargs` for blocks of one function.
        """
        state, whole = self._streams_of(x), isinstance(x, Tensor)
        if g_kwargs and any(isinstance(block, ReversibleBlock) and len(block.functions) < 2 for block in self.blocks):
            raise ValueError("g_kwargs are of each block's second function, and here a block has one; give f_kwargs")
        arguments = ChainArguments(args, kwargs, f_kwargs, g_kwargs, len(self.blocks))
        reconstruct = self.strategy == "reconstructed" and len(self.blocks) and torch.is_grad_enabled()
        reconstruct = reconstruct and all(map(is_reversible, self.blocks)) and not transformed(state)
        if reconstruct and whole and self.coupling.splits:
            joined = reconstructed(
                half_steps_of(self.blocks, arguments), tuple(dense(stream_dtype(stream)) for stream in state),
                coupling=self.coupling, join_dim=self.split_dim, kept_half_blocks=self.kept_half_blocks,
                witness=self._next_witness(), tripwire=self.tripwire, structures=self.structures,
            )  # fmt: skip
            assert isinstance(joined, Tensor)
            return joined
        state = propagate(
            list(self.blocks), state, owner=self, way=self.backpropagation, witness=self._next_witness(),
            arguments=arguments, tripwire=self.tripwire, starts=whole and not self.coupling.splits,
        )  # fmt: skip
        return self.coupling.end(state, self.split_dim) if whole else state

    def _streams_of(self, x: Any) -> State:
        count = self.streams
        if isinstance(x, Tensor):
            if not self.coupling.splits:
                return self.coupling.start(x, self.split_dim, count)
            if not -x.dim() <= self.split_dim < x.dim():
                raise ValueError(
                    f"a tensor of shape {tuple(x.shape)} has no dimension {self.split_dim} to be split along; give the chain"
                    " another split_dim, or a pair of halves"
                )
            size = x.shape[self.split_dim]
            if size % count:
                parts = "odd: it can't be split in halves" if count == 2 else f"no multiple of its {count} streams"
                raise ValueError(f"size {size} of dimension {self.split_dim} is {parts}")
            return self.coupling.start(x, self.split_dim, count)
        if not (isinstance(x, (tuple, list)) and len(x) == count and all(isinstance(one, Tensor) for one in x)):
            kinds = f"{type(x).__name__} of {len(x)}" if isinstance(x, (tuple, list)) else type(x).__name__
            wanted = "a pair of tensors" if count == 2 else f"{count} tensors"
            raise TypeError(f"a reversible chain takes one tensor or {wanted} as a tuple, not {kinds}")
        first, *others = x
        for other in others:
            if (first.dtype, first.device) != (other.dtype, other.device) or first.shape != other.shape:
                raise ValueError(
                    f"the halves differ: {tuple(first.shape)} {first.dtype} {first.device} and"
                    f" {tuple(other.shape)} {other.dtype} {other.device}"
                )
        return tuple(x)

    def pieces(self) -> list[nn.Module]:
        """The functions of each block."""
        return pieces_of(self.blocks)

    @torch.no_grad()
    def inverse(
        self,
        y: Streams,
        *args: Any,
        f_kwargs: OfEachBlock = None,
        g_kwargs: OfEachBlock = None,
        **kwargs: Any,
    ) -> Streams:
        """Returns the input that gives `y`, to rounding, without gradient; in `eval()` for blocks with batch norm.

        Arguments and errors as of `forward`.

        Raises:
            TypeError: one tensor where the coupling needs both streams to go back.
        """
        whole = isinstance(y, Tensor)
        if whole and not self.coupling.splits:
            raise TypeError(
                f"the inverse of coupling {str(self.coupling.named)!r} needs both streams; call the chain and its inverse with a"
                " pair of tensors"
            )
        state = self._streams_of(y)
        arguments = ChainArguments(args, kwargs, f_kwargs, g_kwargs, len(self.blocks))
        given = arguments_of_units(list(self.blocks), arguments)
        for block, own in reversed(list(zip(self.blocks, given, strict=True))):
            assert isinstance(block, ReversibleBlock)
            state = block.inverse(*state, **own)
        return self.coupling.end(state, self.split_dim) if whole else state


def reversible(
    functions: Iterable[nn.Module | Sequence[nn.Module]],
    *,
    coupling: str | Coupling = ADDITIVE,
    split_dim: int = 1,
    strategy: Strategy = "reconstructed",
    kept_half_blocks: int = 0,
    certify: bool = False,
    tripwire: bool = True,
) -> ReversibleChain:
    """Returns a chain of reversible blocks over anybody's functions.

    Args:
        functions: of each block, ``(F, G)``: modules that map a half to a tensor of the same shape. With more than two,
            ``(F1, F2, F3)``, there are as many streams, and each function is called with the others, the one that was
            changed last at the end. Couplings of two streams of the whole (momentum, midpoint, leapfrog) take one function a
            block, which need not be in a tuple, or several, which follow each other.
        coupling: how functions and streams are put together: a name, ``additive``, ``affine``, ``hamiltonian``, ``momentum``,
            ``midpoint`` or ``leapfrog``, with its number after a colon (``momentum:0.9``), or an object of
            `revbench.backprop.couplings`.
        split_dim: the dimension along which a single tensor is split evenly.
        strategy: ``stored``, ``reconstructed``, ``checkpointed`` or ``recursive``; settable later.
        kept_half_blocks: under ``reconstructed``, how many half blocks at the end keep their activations; settable
            later. Each spares the recomputation of one function and costs its activations.
        certify: under ``reconstructed``, compare checksums of the activations; settable later. What was found is
            in the module's ``certificate`` after backward.
        tripwire: let backward raise if a function gives another value when run again than it gave in forward; settable
            later. Costs about 1 % of a step of ordinary size.

    Returns:
        A module called with one tensor, or with the streams as one tuple, ``(x1, x2)``; it returns the same kind. What else it
        is called with goes to every function: ``chain(x, mask=mask)`` calls ``F(x2, mask=mask)``.

    Raises:
        UserError: an unknown strategy or coupling, a function that is not a module (its parameters must be known), blocks of
            unlike numbers of functions, or of a number that the coupling can't have.

    Example:
        >>> chain = revbench.reversible([(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(4)])
        >>> chain(torch.randn(2, 16)).sum().backward()
        >>> chain = revbench.reversible([nn.Linear(8, 8) for _ in range(4)], coupling="midpoint:0.1")
        >>> chain(torch.randn(2, 8)).sum().backward()
    """
    chosen = coupling_of(coupling, dim=split_dim)
    blocks: list[Sequence[nn.Module]] = []
    for i, given in enumerate(functions):
        one = isinstance(given, nn.Module) and not isinstance(given, nn.ModuleList) and not chosen.splits
        block: Any = (given,) if one else given
        well = isinstance(block, (tuple, list, nn.ModuleList)) and all(isinstance(m, nn.Module) for m in block)
        if not well or len(block) < (2 if chosen.splits else 1):
            wanted = "a pair (F, G)" if chosen.splits else "one or more"
            raise UserError(f"block {i} of a reversible chain must be {wanted} of torch.nn.Module")
        blocks.append(block)
        if chosen.splits and len(block) != len(blocks[0]):
            raise UserError(
                f"block {i} has {len(block)} functions and block 0 has {len(blocks[0])}: one for each stream"
            )
    chain = ReversibleChain(blocks, split_dim=split_dim, strategy=strategy, coupling=chosen)
    chain.kept_half_blocks = kept_half_blocks
    chain.certify = certify
    chain.tripwire = tripwire
    return chain
