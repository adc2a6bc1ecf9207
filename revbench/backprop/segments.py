"""The strategies `checkpointed` and `recursive`: keep some states of a sequence of units, recompute the rest.

`checkpointed` keeps the state at about sqrt(L) places and runs each segment between them again with graph
(Martens & Sutskever 2012): O(sqrt L) activations, one more forward pass. `recursive` keeps the first state
only, finds the middle one by running without graph, and does the same with each half (Chen et al. 2016,
section 4.3): O(log L) activations, O(L log L) computation. Both against Table 1 of Gomez et al. 2017.

Not `torch.utils.checkpoint`, because that updates batch-norm statistics twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from revbench.backprop.compiling import outside_graphs
from revbench.backprop.half_step import NO_SECOND_DERIVATIVE
from revbench.backprop.ownership import try_out_gradients
from revbench.backprop.recording import Recording, refuse_strangers

State = tuple[Tensor, ...]


class _Segment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recordings: list[Recording], halve: bool, width: int, *tensors: Tensor) -> State:
        ctx.set_materialize_grads(False)
        ctx.recordings, ctx.halve = recordings, halve
        state = tensors[:width]
        ctx.save_for_backward(*state)
        unseen = not any(ctx.needs_input_grad) and not all(recording.plain for recording in recordings)
        with torch.set_grad_enabled(unseen):  # no node is made: the last moment to see a tensor that is not known
            for recording in recordings:
                state = _as_state(recording.first(*(x.detach() for x in state)))
                edges = [get_gradient_edge(y) for y in state if isinstance(y, Tensor) and y.requires_grad]
                if edges:
                    refuse_strangers(edges, (), recording.name)
        return state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE.format(strategy="recursive" if ctx.halve else "checkpointed"))
        state = ctx.saved_tensors
        try_out_gradients()
        needs = ctx.needs_input_grad[3 : 3 + len(state)]
        collected: dict[int, Tensor] = {}
        state_grads = _differentiate(ctx.recordings, state, needs, grads, collected, halve=ctx.halve)
        parameters = _parameters(ctx.recordings)
        return None, None, None, *state_grads, *(collected.get(id(p)) for p in parameters)


def _differentiate(
    recordings: Sequence[Recording],
    state: State,
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
    collected: dict[int, Tensor],
    *,
    halve: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of the state before `recordings`; those of parameters are added to `collected`."""
    if halve and len(recordings) > 1:
        middle = len(recordings) // 2
        inner = state
        for recording in recordings[:middle]:
            inner = _as_state(recording.states_once_more(*inner))
        grads = _differentiate(recordings[middle:], inner, [True] * len(inner), grads, collected, halve=True)
        del inner
        return _differentiate(recordings[:middle], state, needs, grads, collected, halve=True)

    leaves = tuple(
        x.detach().requires_grad_(need and (x.is_floating_point() or x.is_complex()))
        for x, need in zip(state, needs, strict=True)
    )
    aliases: list[tuple[int, Tensor]] = []
    with torch.enable_grad():
        # Views, because some observers (FlopCounterMode) want tensors that have a history.
        outputs: State = tuple(x.view_as(x) for x in leaves)
        for recording in recordings:
            with recording.again() as found:
                aliases += [(key, alias) for key, alias in found.items() if alias.requires_grad]
                outputs = _as_state(recording.module(*outputs))
    roots = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None and y.requires_grad]
    del outputs
    wanted = [x for x in leaves if x.requires_grad]
    if not roots or not (wanted or aliases):
        return (None,) * len(state)
    edges = [get_gradient_edge(y) for y, _ in roots]
    names = recordings[0].name if len(recordings) == 1 else f"{recordings[0].name} to {recordings[-1].name}"
    if not all(recording.plain for recording in recordings):
        refuse_strangers(edges, [*leaves, *(alias for _, alias in aliases)], names)
    root_grads = [g.to(y.dtype) for y, g in roots]
    del roots
    gradients = torch.autograd.grad(edges, wanted + [a for _, a in aliases], root_grads, allow_unused=True)
    for (key, _), gradient in zip(aliases, gradients[len(wanted) :], strict=True):
        if gradient is not None:
            collected[key] = collected[key] + gradient if key in collected else gradient
    of_state = iter(gradients[: len(wanted)])
    return tuple(next(of_state) if x.requires_grad else None for x in leaves)


@outside_graphs
def segment(units: Sequence[nn.Module], state: State, *, halve: bool = False, first_unit: int = 0) -> State:
    """Run units one after the other, keeping only the state before them; backward runs them again.

    Args:
        units: modules; each takes the state's tensors and returns as many as the next one takes.
        state: the tensors that enter the first unit.
        halve: in backward, find the state in the middle first, and so on (`recursive`).
        first_unit: number of the first unit, for error messages.

    Returns:
        The tensors that leave the last unit.
    """
    recordings = [Recording(unit, f"unit {i}") for i, unit in enumerate(units, first_unit)]
    result: State = _Segment.apply(recordings, halve, len(state), *state, *_parameters(recordings))
    return result


def checkpointed(units: Sequence[nn.Module], state: State) -> State:
    """Segments of about sqrt(L) units; only the states between them are kept."""
    length = math.isqrt(max(len(units) - 1, 0)) + 1
    for start in range(0, len(units), length):
        state = segment(units[start : start + length], state, first_unit=start)
    return state


def recursive(units: Sequence[nn.Module], state: State) -> State:
    """One segment, halved again and again in backward; only the first state is kept."""
    return segment(units, state, halve=True) if units else state


def _parameters(recordings: Sequence[Recording]) -> list[nn.Parameter]:
    return list({id(p): p for recording in recordings for p in recording.parameters}.values())


def _as_state(outputs: Any) -> State:
    return outputs if isinstance(outputs, tuple) else (outputs,)
