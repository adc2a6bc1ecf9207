"""The strategies `checkpointed` and `recursive`: keep some states of a sequence of units, recompute the rest.

`checkpointed` keeps the state at about sqrt(L) places and runs each segment between them again with graph
(Martens & Sutskever 2012): O(sqrt L) activations, one more forward pass. `recursive` keeps the first state
only, finds the middle one by running without graph, and does the same with each half (Chen et al. 2016,
section 4.3): O(log L) activations, O(L log L) computation. Both against Table 1 of Gomez et al. 2017.

Not `torch.utils.checkpoint`, because that updates batch-norm statistics twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop.arguments import NO_ARGUMENTS, Arguments
from revbench.backprop.compiling import outside_graphs
from revbench.backprop.edges import edge_to
from revbench.backprop.half_step import NO_SECOND_DERIVATIVE
from revbench.backprop.ownership import Holders, try_out_gradients
from revbench.backprop.plain import functions_are_pytorchs
from revbench.backprop.recording import Recording
from revbench.backprop.strangers import refuse_strangers
from revbench.backprop.structure import Structures
from revbench.backprop.surroundings import Surroundings
from revbench.backprop.suspicion import Note, Suspicion, changes, watchable
from revbench.backprop.tripwire import next_phase

State = tuple[Tensor, ...]
# What a gradient is of: a parameter can also be an argument, and autograd adds up the two.
_Key = tuple[str, int]
_PARAMETER, _ARGUMENT = "parameter", "argument"


class _Sequence:
    """Units that run one after the other, and what is known of one forward call of them.

    Args:
        recordings: of the units, in order.
        halve: in backward, find the state in the middle first (`recursive`).
        width: how many tensors enter the first unit.
        tripwire: compare what the units give in backward with what they gave in forward.
    """

    def __init__(self, recordings: Sequence[Recording], *, halve: bool, width: int, tripwire: bool) -> None:
        self.recordings = recordings
        self.strategy = "recursive" if halve else "checkpointed"
        self.halve, self.width, self.tripwire = halve, width, tripwire
        self.parameters = list({id(p): p for recording in recordings for p in recording.parameters}.values())
        self.tensors = list({id(t): t for recording in recordings for t in recording.arguments.tensors}.values())
        self._phase = next_phase()
        self._notes: dict[int, list[Note | None]] = {}
        self._unread: list[tuple[int, int, Note, Tensor]] = []

    def note(self, recording: Recording, state: State) -> None:
        """Take note in forward of what a unit gave."""
        if self.tripwire:
            self._notes[id(recording)] = [
                Note(recording.name, recording.module, y, recording.arithmetic(y), self._phase) if _watched(y) else None
                for y in state
            ]

    def look(self, recording: Recording, state: State) -> None:
        """Take note in backward of what it gave again."""
        for i, (note, y) in enumerate(zip(self._notes.get(id(recording), ()), state, strict=self.tripwire)):
            if note is not None:
                self._unread.append((id(recording), i, note, note.now(y)))

    def judge(self, recordings: Sequence[Recording], state: State) -> None:
        """Compare in backward all that `look` has seen.

        Args:
            recordings: of the units that it was shown.
            state: what entered the first of them.

        Raises:
            RuntimeError: a unit gave something else than in forward.
        """
        unread, self._unread = self._unread, []
        found: dict[int, tuple[int, Suspicion]] = {}
        measured = changes([note for _, _, note, _ in unread], [now for *_, now in unread])
        for (key, i, note, now), (change, size) in zip(unread, measured, strict=True):
            if not change <= note.floor * size and math.isfinite(size):
                found.setdefault(key, (i, Suspicion(note, now, change, size)))
        for recording in recordings if found else ():
            if id(recording) in found:
                i, suspicion = found[id(recording)]
                suspicion.settle(state[:1], functools.partial(_once_more, recording, state[1:], i))
            state = _as_state(recording.once_more((*state, *recording.arguments.tensors)))


def _once_more(recording: Recording, others: State, output: int, first: Sequence[Tensor]) -> Tensor:
    """Returns one output of a unit for another first tensor of the state."""
    found: Tensor = _as_state(recording.once_more((*first, *others, *recording.arguments.tensors)))[output]
    return found


def _watched(y: Any) -> bool:
    return isinstance(y, Tensor) and watchable(y)


class _Segment(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sequence: _Sequence, *tensors: Tensor) -> State:
        """`tensors`: the state, the parameters of all units, then the tensors of the units' arguments, unit by unit."""
        ctx.set_materialize_grads(False)
        ctx.sequence = sequence
        state = tensors[: sequence.width]
        extra = tensors[sequence.width + len(sequence.parameters) :]
        ctx.save_for_backward(*state, *extra)
        # What enters a later unit needs gradient as soon as anything before it does, as under `stored`.
        needs = ctx.needs_input_grad[1 : 1 + sequence.width]
        needed_extra = ctx.needs_input_grad[1 + sequence.width + len(sequence.parameters) :]
        of_extra = {id(tensor): need for tensor, need in zip(sequence.tensors, needed_extra, strict=True)}
        for recording in sequence.recordings:
            wanted = [of_extra[id(tensor)] for tensor in recording.arguments.tensors]
            given = (x.detach() for x in (*state, *recording.arguments.tensors))
            state = _as_state(recording.first(*given, needs=(*needs, *wanted)))
            sequence.note(recording, state)
            needed = any(needs) or any(wanted) or any(p.requires_grad for p in recording.parameters)
            needs = tuple(needed and isinstance(y, Tensor) and _differentiable(y) for y in state)
        return state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        sequence: _Sequence = ctx.sequence
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE.format(strategy=sequence.strategy))
        state = ctx.saved_tensors[: sequence.width]
        alone = try_out_gradients()
        collected: dict[_Key, Tensor] = {}
        needs = ctx.needs_input_grad[1 : 1 + sequence.width]
        of_state = _differentiate(sequence, sequence.recordings, state, needs, grads, collected, alone)
        sequence.judge(sequence.recordings, state)
        of_parameters = [collected.get((_PARAMETER, id(p))) for p in sequence.parameters]
        return None, *of_state, *of_parameters, *(collected.get((_ARGUMENT, id(t))) for t in sequence.tensors)


def _differentiate(
    sequence: _Sequence,
    recordings: Sequence[Recording],
    state: State,
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
    collected: dict[_Key, Tensor],
    alone: Holders | None,
) -> tuple[Tensor | None, ...]:
    """Returns gradients of the state before `recordings`; those of parameters and arguments are added to `collected`.

    `alone`: what the holders of a gradient are that may be written over.
    """
    if sequence.halve and len(recordings) > 1:
        middle = len(recordings) // 2
        inner = state
        for recording in recordings[:middle]:
            inner = _as_state(recording.once_more((*inner, *recording.arguments.tensors)))
        grads = _differentiate(
            sequence, recordings[middle:], inner, recordings[middle].needs[: len(inner)], grads, collected, alone
        )
        del inner
        return _differentiate(sequence, recordings[:middle], state, needs, grads, collected, alone)

    leaves = tuple(x.detach().requires_grad_(need) for x, need in zip(state, needs, strict=True))
    outputs: State = leaves
    wanted: list[tuple[_Key, Tensor]] = []
    for recording in recordings:
        given = recording.arguments.tensors
        result, extra, aliases = recording.run_again(
            (*outputs, *given), differentiate=True, linked=len(outputs), alone=alone
        )
        outputs = _as_state(result)
        sequence.look(recording, outputs)
        # Each once: what stands in for a parameter of two units can be the parameter itself.
        known = {id(x) for _, x in wanted}
        wanted += [
            ((_PARAMETER, key), alias)
            for key, alias in aliases.items()
            if alias.requires_grad and id(alias) not in known
        ]
        wanted += [
            ((_ARGUMENT, id(tensor)), leaf) for tensor, leaf in zip(given, extra, strict=True) if leaf.requires_grad
        ]
    if state[0].device.type == "cpu":  # on a GPU at the end, without waiting now
        sequence.judge(recordings, state)
    roots = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None and y.requires_grad]
    del outputs
    inputs = [x for x in leaves if x.requires_grad]
    if not roots or not (inputs or wanted):
        return (None,) * len(state)
    edges = [edge_to(y) for y, _ in roots]
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
    tripwire: bool = True,
    structures: Structures | None = None,
) -> State:
    """Run units one after the other, keeping only the state before them; backward runs them again.

    Args:
        units: modules; each takes the state's tensors and returns as many as the next one takes.
        state: the tensors that enter the first unit.
        halve: in backward, find the state in the middle first, and so on (`recursive`).
        first_unit: number of the first unit, for error messages.
        arguments: what each unit is called with beside the state.
        tripwire: compare what the units give in backward with what they gave in forward.
        structures: what is known of the units from earlier calls.

    Returns:
        The tensors that leave the last unit.
    """
    whole, surroundings = functions_are_pytorchs(), Surroundings(state[0].device)
    given = arguments or [NO_ARGUMENTS] * len(units)
    recordings = [
        Recording(
            unit,
            f"unit {i}",
            pytorch_is_whole=whole,
            surroundings=surroundings,
            structures=structures or Structures(),
            arguments=own,
        )
        for i, (unit, own) in enumerate(zip(units, given, strict=True), first_unit)
    ]
    sequence = _Sequence(recordings, halve=halve, width=len(state), tripwire=tripwire)
    result: State = _Segment.apply(sequence, *state, *sequence.parameters, *sequence.tensors)
    return result


def checkpointed(
    units: Sequence[nn.Module],
    state: State,
    arguments: Sequence[Arguments] | None = None,
    *,
    tripwire: bool = True,
    structures: Structures | None = None,
) -> State:
    """Runs segments of about sqrt(L) units; only the states between them are kept."""
    length = math.isqrt(max(len(units) - 1, 0)) + 1
    for start in range(0, len(units), length):
        own = arguments[start : start + length] if arguments else None
        state = segment(
            units[start : start + length],
            state,
            first_unit=start,
            arguments=own,
            tripwire=tripwire,
            structures=structures,
        )
    return state


def recursive(
    units: Sequence[nn.Module],
    state: State,
    arguments: Sequence[Arguments] | None = None,
    *,
    tripwire: bool = True,
    structures: Structures | None = None,
) -> State:
    """Runs one segment, halved again and again in backward; only the first state is kept."""
    return (
        segment(units, state, halve=True, arguments=arguments, tripwire=tripwire, structures=structures)
        if units
        else state
    )


def _as_state(outputs: Any) -> State:
    return outputs if isinstance(outputs, tuple) else (outputs,)
