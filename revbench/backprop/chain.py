"""Reversible blocks, chains of them over anybody's F and G, and the one function that runs any sequence of units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop import segments
from revbench.backprop.arguments import Arguments, ChainArguments, OfEachBlock
from revbench.backprop.certificate import Witness
from revbench.backprop.half_step import reconstructed
from revbench.backprop.inputs import dense, transformed
from revbench.backprop.plain import plain_container
from revbench.backprop.strategy_module import StrategyModule
from revbench.backprop.stream import FloatStream
from revbench.backprop.torch_strategies import BudgetedUnits, run_torch_strategy
from revbench.case.views import Backpropagation
from revbench.choices import STRATEGIES, TORCH_STRATEGIES, Strategy
from revbench.errors import UserError

State = tuple[Tensor, ...]
Halves = Tensor | tuple[Tensor, Tensor]


_Call = tuple[tuple[Any, ...], Mapping[str, Any]]


@plain_container
class ReversibleBlock(nn.Module):
    """Additive coupling ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` (Gomez et al. 2017, equation 6).

    Called by itself it runs under plain autograd; `propagate` and `ReversibleChain` choose otherwise.

    Args:
        f, g: modules that map a half to a tensor of the same shape.
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.g = g

    def forward(
        self, x1: Tensor, x2: Tensor, *, f_arguments: _Call = ((), {}), g_arguments: _Call = ((), {})
    ) -> tuple[Tensor, Tensor]:
        """Returns ``(y1, y2)``, of the halves' shape.

        Args:
            x1, x2: the halves.
            f_arguments, g_arguments: what F and G are called with after their half: arguments, keyword arguments.
        """
        y1 = x1 + self.f(x2, *f_arguments[0], **f_arguments[1])
        return y1, x2 + self.g(y1, *g_arguments[0], **g_arguments[1])

    @torch.no_grad()
    def inverse(
        self, y1: Tensor, y2: Tensor, *, f_arguments: _Call = ((), {}), g_arguments: _Call = ((), {})
    ) -> tuple[Tensor, Tensor]:
        """Returns ``x2 = y2 - G(y1)``, ``x1 = y1 - F(x2)`` (equation 7), without gradient; arguments as of `forward`."""
        x2 = y2 - self.g(y1, *g_arguments[0], **g_arguments[1])
        return y1 - self.f(x2, *f_arguments[0], **f_arguments[1]), x2


def is_reversible(unit: nn.Module) -> bool:
    """Tells whether a unit is an additive coupling that can be reconstructed; a subclass with a forward of its own is not."""
    own = isinstance(unit, ReversibleBlock) and type(unit).forward is ReversibleBlock.forward
    return own and "forward" not in unit.__dict__


def pieces_of(units: Iterable[nn.Module]) -> list[nn.Module]:
    """Returns what a strategy calls of these units: F and G of an additive coupling, the others whole."""
    pieces: list[nn.Module] = []
    for unit in units:
        pieces += [unit.f, unit.g] if isinstance(unit, ReversibleBlock) and is_reversible(unit) else [unit]
    return pieces


def _pairs(blocks: Iterable[nn.Module], first_block: int = 0) -> list[tuple[nn.Module, nn.Module]]:
    """F and G of each block.

    Raises:
        RuntimeError: hooks on a block itself, which is not called: its F and G are.
    """
    pairs = []
    for i, block in enumerate(blocks, first_block):
        assert isinstance(block, ReversibleBlock)
        if block._forward_hooks or block._forward_pre_hooks or block._backward_hooks or block._backward_pre_hooks:
            raise RuntimeError(
                f"block {i} has hooks, but under 'reconstructed' only its f and g are called; hook those"
            )
        pairs.append((block.f, block.g))
    return pairs


def propagate(
    units: Sequence[nn.Module],
    state: State,
    *,
    owner: nn.Module,
    way: Backpropagation,
    witness: Witness | None = None,
    arguments: ChainArguments | None = None,
    tripwire: bool = True,
) -> State:
    """Run units one after the other so that backward works in the given way.

    Args:
        units: modules from a state to a state. Under `reconstructed` each run of `ReversibleBlock` is
            reconstructed from the state after it, and the other units follow `nonreversible`.
        state: the tensors that enter the first unit (two halves if any unit is reversible).
        owner: the module whose units they are.
        way: the strategy, and what goes with it. Whether it certifies is its owner's affair, by the witness.
        witness: under `reconstructed`, sees the activations.
        arguments: what each F and G is called with beside its half, if all units are `ReversibleBlock`.
        tripwire: under the strategies that run functions again, compare what they give with what they gave.

    Returns:
        The tensors that leave the last unit.
    """
    stream = FloatStream()
    if any(is_reversible(unit) for unit in units):
        state = tuple(stream.enter(half) for half in state)
    strategy = way.strategy
    if strategy == "stored" or not torch.is_grad_enabled() or transformed(state):
        return _run(units, state, arguments)
    if strategy in TORCH_STRATEGIES:
        budgeted = owner.budgeted_units if isinstance(owner, StrategyModule) else BudgetedUnits()
        return run_torch_strategy(strategy, units, state, budgeted, arguments)
    structures = owner.structures if isinstance(owner, StrategyModule) else None
    own = [Arguments((), arguments.of_block(i)) for i in range(len(units))] if arguments else None
    state = tuple(map(dense, state))
    if strategy == "checkpointed":
        return segments.checkpointed(units, state, own, tripwire=tripwire, structures=structures)
    if strategy == "recursive":
        return segments.recursive(units, state, own, tripwire=tripwire, structures=structures)
    start = 0
    while start < len(units):
        stop = start
        while stop < len(units) and is_reversible(units[stop]):
            stop += 1
        if stop > start:
            pairs = _pairs(units[start:stop], start)
            halves = reconstructed(
                pairs, *state, stream=stream, first_block=start, kept_half_blocks=way.kept_half_blocks, witness=witness,
                arguments=arguments, tripwire=tripwire, structures=structures,
            )  # fmt: skip
            state = tuple(halves)
        else:
            stop += 1
            unit = units[start]
            if way.nonreversible == "recomputed":
                state = segments.segment([unit], state, first_unit=start, tripwire=tripwire, structures=structures)
            else:
                state = _run([unit], state, None)
        start = stop
    return state


def _run(units: Iterable[nn.Module], state: State, arguments: ChainArguments | None) -> State:
    for i, unit in enumerate(units):
        outputs = unit(*state, **arguments.of_block(i)) if arguments else unit(*state)
        state = outputs if isinstance(outputs, tuple) else (outputs,)
    return state


class ReversibleChain(StrategyModule):
    """A chain of additive coupling blocks; see `reversible`."""

    def __init__(self, pairs: Iterable[tuple[nn.Module, nn.Module]], *, split_dim: int, strategy: Strategy) -> None:
        super().__init__(STRATEGIES, strategy, "kept")
        self.blocks = nn.ModuleList(ReversibleBlock(f, g) for f, g in pairs)
        self.split_dim = split_dim

    def forward(
        self,
        x: Halves,
        *args: Any,
        f_kwargs: OfEachBlock = None,
        g_kwargs: OfEachBlock = None,
        **kwargs: Any,
    ) -> Halves:
        """Run the chain.

        Args:
            x: one tensor, whose size along `split_dim` is even, or a pair of halves as a tuple.
            args, kwargs: what every F and every G is called with after its half: masks, contexts, positions. Tensors among
                them that need gradient get theirs; tuples, lists and dicts may be nested.
            f_kwargs, g_kwargs: further keyword arguments for each F or each G: a dict, or a list with one for each block.

        Returns:
            The same kind as `x`, of the same shape.

        Raises:
            TypeError: `x` is neither a tensor nor a pair of tensors.
            ValueError: halves of unlike shape, dtype or device, an odd size along `split_dim`, no such dimension.
        """
        x1, x2 = self._halves(x)
        join_dim = self.split_dim if isinstance(x, Tensor) else None
        arguments = ChainArguments(args, kwargs, f_kwargs, g_kwargs, len(self.blocks))
        reconstruct = self.strategy == "reconstructed" and len(self.blocks) and torch.is_grad_enabled()
        reconstruct = reconstruct and all(map(is_reversible, self.blocks)) and not transformed((x1, x2))
        if reconstruct and join_dim is not None:
            stream = FloatStream()
            joined = reconstructed(
                _pairs(self.blocks), dense(stream.enter(x1)), dense(stream.enter(x2)), stream=stream, join_dim=join_dim,
                kept_half_blocks=self.kept_half_blocks, witness=self._next_witness(), arguments=arguments,
                tripwire=self.tripwire, structures=self.structures,
            )  # fmt: skip
            assert isinstance(joined, Tensor)
            return joined
        y1, y2 = propagate(
            list(self.blocks), (x1, x2), owner=self, way=self.backpropagation, witness=self._next_witness(),
            arguments=arguments, tripwire=self.tripwire,
        )  # fmt: skip
        return (y1, y2) if join_dim is None else torch.cat((y1, y2), join_dim)

    def _halves(self, x: Any) -> tuple[Tensor, Tensor]:
        if isinstance(x, Tensor):
            if not -x.dim() <= self.split_dim < x.dim():
                raise ValueError(
                    f"a tensor of shape {tuple(x.shape)} has no dimension {self.split_dim} to be split along; give the chain"
                    " another split_dim, or a pair of halves"
                )
            if x.shape[self.split_dim] % 2:
                raise ValueError(
                    f"size {x.shape[self.split_dim]} of dimension {self.split_dim} is odd: it can't be split in halves"
                )
            x1, x2 = x.chunk(2, self.split_dim)
        elif isinstance(x, (tuple, list)) and len(x) == 2 and all(isinstance(half, Tensor) for half in x):
            x1, x2 = x
        else:
            kinds = f"{type(x).__name__} of {len(x)}" if isinstance(x, (tuple, list)) else type(x).__name__
            raise TypeError(f"a reversible chain takes one tensor or a pair of tensors as a tuple, not {kinds}")
        if (x1.shape, x1.dtype, x1.device) != (x2.shape, x2.dtype, x2.device):
            raise ValueError(
                f"the halves differ: {tuple(x1.shape)} {x1.dtype} {x1.device} and {tuple(x2.shape)} {x2.dtype} {x2.device}"
            )
        return x1, x2

    def pieces(self) -> list[nn.Module]:
        """F and G of each block."""
        return pieces_of(self.blocks)

    @torch.no_grad()
    def inverse(
        self,
        y: Halves,
        *args: Any,
        f_kwargs: OfEachBlock = None,
        g_kwargs: OfEachBlock = None,
        **kwargs: Any,
    ) -> Halves:
        """Returns the input that gives `y`, to rounding, without gradient; in `eval()` for blocks with batch norm.

        Arguments and errors as of `forward`.
        """
        y1, y2 = self._halves(y)
        arguments = ChainArguments(args, kwargs, f_kwargs, g_kwargs, len(self.blocks))
        for i, block in reversed(list(enumerate(self.blocks))):
            assert isinstance(block, ReversibleBlock)
            y1, y2 = block.inverse(y1, y2, **arguments.of_block(i))
        return torch.cat((y1, y2), self.split_dim) if isinstance(y, Tensor) else (y1, y2)


def reversible(
    pairs: Iterable[tuple[nn.Module, nn.Module]],
    *,
    split_dim: int = 1,
    strategy: Strategy = "reconstructed",
    kept_half_blocks: int = 0,
    certify: bool = False,
    tripwire: bool = True,
) -> ReversibleChain:
    """Returns a chain of additive coupling blocks over anybody's F and G.

    Args:
        pairs: ``(F, G)`` of each block: modules that map a half to a tensor of the same shape.
        split_dim: the dimension along which a single tensor is split in halves.
        strategy: ``stored``, ``reconstructed``, ``checkpointed`` or ``recursive``; settable later.
        kept_half_blocks: under ``reconstructed``, how many half blocks at the end keep their activations; settable
            later. Each spares the recomputation of one F or G and costs its activations.
        certify: under ``reconstructed``, compare checksums of the activations; settable later. What was found is
            in the module's ``certificate`` after backward.
        tripwire: let backward raise if a function gives another value when run again than it gave in forward; settable
            later. Costs about 1 % of a step of ordinary size.

    Returns:
        A module called with one tensor, or with a pair ``(x1, x2)`` as one tuple; it returns the same kind. What else it
        is called with goes to every F and G: ``chain(x, mask=mask)`` calls ``F(x2, mask=mask)``.

    Raises:
        UserError: an unknown strategy, or an F or G that is not a module (its parameters must be known).

    Example:
        >>> chain = revbench.reversible([(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(4)])
        >>> chain(torch.randn(2, 16)).sum().backward()
    """
    pairs = list(pairs)
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or not all(isinstance(module, nn.Module) for module in pair):
            raise UserError(f"block {i} of a reversible chain must be a pair (F, G) of torch.nn.Module")
    chain = ReversibleChain(pairs, split_dim=split_dim, strategy=strategy)
    chain.kept_half_blocks = kept_half_blocks
    chain.certify = certify
    chain.tripwire = tripwire
    return chain
