"""The strategies `checkpointed` and `recursive`: keep some states of a sequence of units, recompute the rest.

`checkpointed` keeps the state at about sqrt(L) places and runs each segment between them again with graph
(Martens & Sutskever 2012): O(sqrt L) activations, one more forward pass. `recursive` keeps the first state
only, finds the middle one by running without graph, and does the same with each half (Chen et al. 2016,
section 4.3): O(log L) activations, O(L log L) computation. Both against Table 1 of Gomez et al. 2017.

Not `torch.utils.checkpoint`, because that updates batch-norm statistics twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from revbench.backprop.arguments import NO_ARGUMENTS, Arguments
from revbench.backprop.compiling import outside_graphs
from revbench.backprop.half_step import NO_SECOND_DERIVATIVE
from revbench.backprop.ownership import try_out_gradients
from revbench.backprop.plain import functions_are_pytorchs
from revbench.backprop.recording import Recording
from revbench.backprop.strangers import refuse_strangers

State = tuple[Tensor, ...]


class _Segment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recordings: list[Recording], halve: bool, width: int, *tensors: Tensor) -> State:
        """`tensors`: the state, the parameters of all units, then the tensors of the units' arguments, unit by unit."""
        ctx.set_materialize_grads(False)
        ctx.recordings, ctx.halve, ctx.width = recordings, halve, width
        parameters = len(_parameters(recordings))
        state = tensors[:width]
        arguments = _Arguments(
            recordings, tensors[width + parameters :], ctx.needs_input_grad[3 + width + parameters :]
        )
        ctx.save_for_backward(*state, *tensors[width + parameters :])
        # What enters a later unit needs gradient as soon as anything before it does, as under `stored`.
        needs = ctx.needs_input_grad[3 : 3 + width]
        for recording in recordings:
            given, wanted = arguments.of(recording)
            outputs = recording.first(*(x.detach() for x in state), *given, needs=(*needs, *wanted))
            state = _as_state(outputs)
            needed = any(needs) or any(wanted) or any(p.requires_grad for p in recording.parameters)
            needs = tuple(needed and isinstance(y, Tensor) and _differentiable(y) for y in state)
        return state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE.format(strategy="recursive" if ctx.halve else "checkpointed"))
        recordings, width = ctx.recordings, ctx.width
        saved = ctx.saved_tensors
        parameters = _parameters(recordings)
        needs = ctx.needs_input_grad[3:]
        arguments = _Arguments(recordings, saved[width:], needs[width + len(parameters) :])
        try_out_gradients()
        collected: dict[Any, Tensor] = {}
        of_state = _differentiate(
            recordings, saved[:width], needs[:width], grads, arguments, collected, halve=ctx.halve
        )
        of_parameters = (collected.get(id(p)) for p in parameters)
        return None, None, None, *of_state, *of_parameters, *(collected.get(key) for key in arguments.places())


class _Arguments:
    """The tensors that the units of a segment are called with beside the state.

    Args:
        recordings: of the units.
        tensors: unit by unit.
        needs: of each tensor, whether it needs gradient.
    """

    def __init__(self, recordings: Sequence[Recording], tensors: Sequence[Tensor], needs: Sequence[bool]) -> None:
        self._of: dict[int, tuple[Sequence[Tensor], Sequence[bool]]] = {}
        start = 0
        for recording in recordings:
            stop = start + len(recording.arguments.tensors)
            self._of[id(recording)] = tensors[start:stop], needs[start:stop]
            start = stop

    def of(self, recording: Recording) -> tuple[Sequence[Tensor], Sequence[bool]]:
        """Of one unit: its tensors, and whether each needs gradient."""
        return self._of[id(recording)]

    def places(self) -> Iterable[tuple[int, int]]:
        """What the gradient of each tensor is collected under, in order."""
        return [(key, i) for key, (tensors, _) in self._of.items() for i in range(len(tensors))]


def _differentiate(
    recordings: Sequence[Recording],
    state: State,
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
    arguments: _Arguments,
    collected: dict[Any, Tensor],
    *,
    halve: bool,
) -> tuple[Tensor | None, ...]:
    """Gradients of the state before `recordings`; those of parameters and arguments are added to `collected`."""
    if halve and len(recordings) > 1:
        middle = len(recordings) // 2
        inner = state
        for recording in recordings[:middle]:
            inner = _as_state(recording.once_more((*inner, *arguments.of(recording)[0])))
        needs_inner = recordings[middle].needs[: len(inner)]
        grads = _differentiate(recordings[middle:], inner, needs_inner, grads, arguments, collected, halve=True)
        del inner
        return _differentiate(recordings[:middle], state, needs, grads, arguments, collected, halve=True)

    leaves = tuple(x.detach().requires_grad_(need) for x, need in zip(state, needs, strict=True))
    outputs: State = leaves
    wanted: list[tuple[Any, Tensor]] = []
    for recording in recordings:
        given, given_needs = arguments.of(recording)
        result, extra, aliases = recording.run_again((*outputs, *given), differentiate=True, linked=len(outputs))
        outputs = _as_state(result)
        wanted += [(key, alias) for key, alias in aliases.items() if alias.requires_grad]
        wanted += [((id(recording), i), x) for i, (x, n) in enumerate(zip(extra, given_needs, strict=True)) if n]
    roots = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None and y.requires_grad]
    del outputs
    inputs = [x for x in leaves if x.requires_grad]
    if not roots or not (inputs or wanted):
        return (None,) * len(state)
    edges = [get_gradient_edge(y) for y, _ in roots]
    for recording in recordings:
        if not recording.plain:
            refuse_strangers(edges, [*leaves, *(x for _, x in wanted)], recording)
    root_grads = [g.to(y.dtype) for y, g in roots]
    del roots
    found = torch.autograd.grad(edges, inputs + [x for _, x in wanted], root_grads, allow_unused=True)
    for (key, _), gradient in zip(wanted, found[len(inputs) :], strict=True):
        if gradient is not None:
            collected[key] = collected[key] + gradient if key in collected else gradient
    of_state = iter(found[: len(inputs)])
    return tuple(next(of_state) if x.requires_grad else None for x in leaves)


def _differentiable(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


@outside_graphs
def segment(
    units: Sequence[nn.Module],
    state: State,
    *,
    halve: bool = False,
    first_unit: int = 0,
    arguments: Sequence[Arguments] | None = None,
) -> State:
    """Run units one after the other, keeping only the state before them; backward runs them again.

    Args:
        units: modules; each takes the state's tensors and returns as many as the next one takes.
        state: the tensors that enter the first unit.
        halve: in backward, find the state in the middle first, and so on (`recursive`).
        first_unit: number of the first unit, for error messages.
        arguments: what each unit is called with beside the state.

    Returns:
        The tensors that leave the last unit.
    """
    whole = functions_are_pytorchs()
    given = arguments or [NO_ARGUMENTS] * len(units)
    recordings = [
        Recording(unit, f"unit {i}", pytorch_is_whole=whole, arguments=own)
        for i, (unit, own) in enumerate(zip(units, given, strict=True), first_unit)
    ]
    extra = [tensor for recording in recordings for tensor in recording.arguments.tensors]
    result: State = _Segment.apply(recordings, halve, len(state), *state, *_parameters(recordings), *extra)
    return result


def checkpointed(units: Sequence[nn.Module], state: State, arguments: Sequence[Arguments] | None = None) -> State:
    """Segments of about sqrt(L) units; only the states between them are kept."""
    length = math.isqrt(max(len(units) - 1, 0)) + 1
    for start in range(0, len(units), length):
        own = arguments[start : start + length] if arguments else None
        state = segment(units[start : start + length], state, first_unit=start, arguments=own)
    return state


def recursive(units: Sequence[nn.Module], state: State, arguments: Sequence[Arguments] | None = None) -> State:
    """One segment, halved again and again in backward; only the first state is kept."""
    return segment(units, state, halve=True, arguments=arguments) if units else state


def _parameters(recordings: Sequence[Recording]) -> list[nn.Parameter]:
    return list({id(p): p for recording in recordings for p in recording.parameters}.values())


def _as_state(outputs: Any) -> State:
    return outputs if isinstance(outputs, tuple) else (outputs,)
