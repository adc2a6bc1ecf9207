"""The one function that runs any sequence of units so that backward works in a given way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from revbench.backprop import segments
from revbench.backprop.arguments import Arguments, Call, ChainArguments
from revbench.backprop.block import ReversibleBlock, State, is_reversible
from revbench.backprop.certificate import Witness
from revbench.backprop.coupling import HalfStep
from revbench.backprop.half_step import reconstructed
from revbench.backprop.inputs import dense, stream_dtype, transformed
from revbench.backprop.strategy_module import StrategyModule
from revbench.backprop.torch_strategies import BudgetedUnits, run_torch_strategy
from revbench.case.views import Backpropagation
from revbench.choices import TORCH_STRATEGIES


def half_steps_of(
    blocks: Iterable[nn.Module], arguments: ChainArguments | None, first_block: int = 0, *, starts: bool = False
) -> list[tuple[HalfStep, str, Call | None]]:
    """Those of each block, with their names, and what their functions are called with beside the streams.

    Raises:
        RuntimeError: hooks on a block itself, which is not called: its functions are.
    """
    found: list[tuple[HalfStep, str, Call | None]] = []
    for i, block in enumerate(blocks, first_block):
        assert isinstance(block, ReversibleBlock)
        if block._forward_hooks or block._forward_pre_hooks or block._backward_hooks or block._backward_pre_hooks:
            raise RuntimeError(
                f"block {i} has hooks, but under 'reconstructed' only its functions are called; hook those (f, g)"
            )
        for step in block.half_steps(starts=starts and i == 0):
            given = arguments.of(i, step.argument) if arguments and step.argument is not None else None
            found.append((step, f"block {i}'s {step.name}", given))
    return found


def propagate(
    units: Sequence[nn.Module],
    state: State,
    *,
    owner: nn.Module,
    way: Backpropagation,
    witness: Witness | None = None,
    arguments: ChainArguments | None = None,
    tripwire: bool = True,
    starts: bool = False,
) -> State:
    """Run units one after the other so that backward works in the given way.

    Args:
        units: modules from a state to a state. Under `reconstructed` each run of `ReversibleBlock` of one coupling is
            reconstructed from the state after it, and the other units follow `nonreversible`.
        state: the tensors that enter the first unit: the streams, if it is reversible.
        owner: the module whose units they are.
        way: the strategy, and what goes with it. Whether it certifies is its owner's affair, by the witness.
        witness: under `reconstructed`, sees the activations.
        arguments: what each function is called with beside the streams, if all units are `ReversibleBlock`; or what units of
            other kinds are (`SharedArguments`).
        tripwire: under the strategies that run functions again, compare what they give with what they gave.
        starts: whether the state is what a coupling made of one tensor.

    Returns:
        The tensors that leave the last unit.
    """
    if any(is_reversible(unit) for unit in units):
        state = tuple(stream_dtype(stream) for stream in state)
    of_units = arguments_of_units(units, arguments, starts=starts)
    strategy = way.strategy
    if strategy == "stored" or not torch.is_grad_enabled() or transformed(state):
        return _run(units, state, of_units)
    if strategy in TORCH_STRATEGIES:
        budgeted = owner.budgeted_units if isinstance(owner, StrategyModule) else BudgetedUnits()
        return run_torch_strategy(strategy, units, state, budgeted, of_units)
    structures = owner.structures if isinstance(owner, StrategyModule) else None
    own = [Arguments((), given) for given in of_units] if any(of_units) else None
    state = tuple(map(dense, state))
    if strategy == "checkpointed":
        return segments.checkpointed(units, state, own, tripwire=tripwire, structures=structures)
    if strategy == "recursive":
        return segments.recursive(units, state, own, tripwire=tripwire, structures=structures)
    start = 0
    while start < len(units):
        unit, stop = units[start], start + 1
        if isinstance(unit, ReversibleBlock) and is_reversible(unit):
            while stop < len(units) and is_reversible(units[stop]) and units[stop].coupling == unit.coupling:
                stop += 1
            left = reconstructed(
                half_steps_of(units[start:stop], arguments, start, starts=starts), state, coupling=unit.coupling,
                kept_half_blocks=way.kept_half_blocks, witness=witness, tripwire=tripwire, structures=structures,
            )  # fmt: skip
            assert isinstance(left, tuple)
            state = left
        elif way.nonreversible == "recomputed":
            state = segments.segment(
                [unit], state, first_unit=start, tripwire=tripwire, structures=structures,
                arguments=[Arguments((), of_units[start])] if of_units[start] else None,
            )  # fmt: skip
        else:
            state = _run([unit], state, [of_units[start]])
        start = stop
    return state


def arguments_of_units(
    units: Sequence[nn.Module], arguments: ChainArguments | None, *, starts: bool = False
) -> list[dict[str, Any]]:
    """Returns the keyword arguments of each unit beside the streams."""
    found: list[dict[str, Any]] = []
    # Of a unit that wraps a block as many as the others have.
    functions = max((len(unit.functions) for unit in units if isinstance(unit, ReversibleBlock)), default=2)
    for i in range(len(units)):
        given = arguments.of_unit(i, functions) if arguments else {}
        found.append({**given, "starts": True} if starts and i == 0 else given)
    return found


def _run(units: Sequence[nn.Module], state: State, of_units: Sequence[Mapping[str, Any]]) -> State:
    for unit, given in zip(units, of_units, strict=True):
        outputs = unit(*state, **given)
        state = outputs if isinstance(outputs, tuple) else (outputs,)
    return state
