"""The strategy `reconstructed`: back-propagation through a chain of half steps without its activations.

A block ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` is two half steps of one form: the streams ``(b, a)`` become ``(a, b + m(a))``.
Other couplings join b and m(a) by another rule, and more streams may take turns (`revbench.backprop.couplings`). Each half
step is one autograd node. Forward keeps nothing but the streams that leave the chain. Backward goes through Algorithm 1 of
Gomez et al. 2017 half a block at a time: run ``m(a)`` again, once, with graph; take its value to undo the addition,
``b = out - m(a)``, and its graph for the gradient. Autograd itself sums and frees the gradients of the
streams, and since parameters are inputs of the node, hooks, frozen parameters, `torch.autograd.grad` and
DistributedDataParallel find what they expect.

Live at the worst moment, H being one half of the activations: 2H streams, 2H their gradients, the graph of one
half step, and what autograd's backward of that graph allocates.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.arguments import NO_ARGUMENTS, Arguments, Call
from revbench.backprop.certificate import Witness
from revbench.backprop.compiling import outside_graphs
from revbench.backprop.coupling import Coupling, HalfStep
from revbench.backprop.entering import Whole, Zeros
from revbench.backprop.finite import all_finite, refuse_what_is_not_finite
from revbench.backprop.ownership import memory_is_ours
from revbench.backprop.plain import functions_are_pytorchs
from revbench.backprop.recording import Recording
from revbench.backprop.rules import Rule, is_linear
from revbench.backprop.second_call import SecondCall, Wanted
from revbench.backprop.structure import Structures
from revbench.backprop.surroundings import Surroundings
from revbench.backprop.suspicion import watchable
from revbench.backprop.tape import State, Step, Tape, call_again
from revbench.backprop.tripwire import Tripwire

NO_SECOND_DERIVATIVE = (
    "second derivatives (create_graph=True) are not possible through strategy {strategy!r};"
    " set model.strategy = 'stored' for this pass"
)


class _HalfStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, step: Step, b: Tensor, *others: Tensor) -> Tensor:
        """Returns what b becomes; `others` are the streams a, the parameters of m, then the tensors of its arguments."""
        ctx.set_materialize_grads(False)
        recording, rule = step
        if tape.witness is not None:
            tape.witness.note(recording.name, b)
        arguments = others[len(others) - len(recording.arguments.tensors) :]
        a = others[: len(others) - len(arguments) - len(recording.parameters)]
        needs = ctx.needs_input_grad[3:]
        value = recording.first(*a, *arguments, needs=(*needs[: len(a)], *needs[len(others) - len(arguments) :]))
        _refuse_another_shape(recording.name, b, value, rule)
        if recording.hooks_input:
            raise RuntimeError(
                f"{recording.name} hooks the gradient of its input (or retains it), which under plain autograd is that of the"
                " whole stream, and here only this function's share; hook a copy (x.clone()), or set strategy 'stored'"
            )
        if tape.witness is not None:
            tape.witness.note_value(recording.name, value)
        if tape.tripwire is not None:  # before the addition, which then finds the value in the cache
            coarse = recording.arithmetic(value)
            tape.tripwire.note(recording.name, recording.module, value, coarse, rule=rule, changes=b)
        spare = recording.eager and tape.witness is None and value.stride() == b.stride()
        spare = spare and all(value is not stream for stream in a) and memory_is_ours(value)
        out = _join(rule, recording.name, b, a, value, spare=spare)
        ctx.strides = b.stride(), [stream.stride() for stream in a]
        ctx.save_for_backward(*arguments)
        ctx.tape, ctx.step, ctx.index = tape, step, len(tape.steps)
        if tape.first_with_gradient is None and any(ctx.needs_input_grad):
            tape.first_with_gradient = len(tape.steps)
        tape.steps.append(step)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None) -> tuple[Tensor | None, ...]:
        """Half a block of Algorithm 1: ``m(a)`` once more; its value undoes the half step, its graph gives the gradient."""
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE.format(strategy="reconstructed"))
        tape: Tape = ctx.tape
        recording, rule = ctx.step
        strides_of_b, strides = ctx.strides
        wanted = Wanted.of(ctx.needs_input_grad, len(strides), len(recording.parameters), grad_out)
        last = ctx.index == tape.first_with_gradient
        through_b = not is_linear(rule) and grad_out is not None and (wanted.any or wanted.of_b)
        # No name for `out` where `undo` must be able to free it.
        a, last_out = tape.end(needs_out=through_b) if last else (tape.state()[:-1], None)
        a = tuple(_laid_out(stream, stride) for stream, stride in zip(a, strides, strict=True))
        of_inputs, of_parameters = wanted.nothing()
        of_b = grad_out if wanted.of_b else None
        if wanted.any or through_b or not last:
            second = SecondCall(recording, (*a, *ctx.saved_tensors), rule, differentiate=wanted.any, alone=tape.alone)
            value = second.take_value(a[0].dtype)
            weighed = _look_at(value, tape, ctx.index, recording, a)
            if not last:  # b = out - m(a)
                tape.undo(rule, value, spare=second.edge is not None and value.stride() == strides_of_b)
                if tape.tripwire is not None:
                    tape.tripwire.bring_back(ctx.index, tape.state()[0])
            if through_b:
                b = tape.state()[0] if not last else rule.inverse(_there(last_out), a, value)
                second.join(b, needs=wanted.of_b)
                del b
            del value  # before its graph is gone through
            if grad_out is not None:
                of_inputs, of_parameters, of_b = second.gradients(grad_out, wanted)
            if not last:
                tape.put_back(ctx.index)
            if tape.witness is not None and not last:
                again = functools.partial(recording.once_more, (*a, *ctx.saved_tensors), differentiate=wanted.any)
                tape.witness.compare(recording.name, tape.state()[0], weighed, again)
        elif of_b is not None and is_linear(rule):
            of_b = of_b * rule.keep if rule.keep != 1.0 else of_b
        if last:
            tape.settle(ctx.index, a, last_out)
        of_a, of_arguments = of_inputs[: len(a)], of_inputs[len(a) :]
        return None, None, of_b, *of_a, *of_parameters, *of_arguments


def _there(out: Tensor | None) -> Tensor:
    assert out is not None
    return out


def _laid_out(stream: Tensor, strides: tuple[int, ...]) -> Tensor:
    """Returns a stream in the layout that the function was shown."""
    if stream.stride() == strides:
        return stream
    return torch.empty_strided(stream.shape, strides, dtype=stream.dtype, device=stream.device).copy_(stream)


def _look_at(value: Tensor, tape: Tape, index: int, recording: Recording, a: Sequence[Tensor]) -> Any:
    """Show the value of a second call to tripwire and witness; what the latter says of it."""
    if tape.tripwire is not None:
        for suspicion in tape.tripwire.look(index, value):
            suspicion.settle(a, functools.partial(call_again, recording))
    return tape.witness.digest_residual(value) if tape.witness is not None else None


def _refuse_another_shape(name: str, b: Tensor, value: Any, rule: Rule) -> None:
    """Raise if `value` is not a tensor of the shape that the rule wants of it, for the stream that it is to be joined to."""
    shape = rule.shape_of_value(b.shape)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        if shape == tuple(b.shape):
            wanted = f"of the shape {shape} of the half that it is added to"
        else:
            wanted = f"of the shape {shape}: scale and shift of a stream of shape {tuple(b.shape)}"
        raise ValueError(f"{name} returned {found}; it must return one tensor, {wanted}")


def _join(
    rule: Rule, name: str, b: Tensor, a: Sequence[Tensor], value: Tensor, *, spare: bool = False, undone: bool = True
) -> Tensor:
    """Returns what b becomes, if that has the dtype of the stream; written over `value` if that is `spare`. `undone` says whether
    backward goes back through it.

    Raises:
        ValueError: `value` has a dtype that would change the stream's.
        FloatingPointError: the half step can't be undone.
    """
    out = rule.forward(b, a, value, into=value if spare and value.dtype is b.dtype and value.shape == b.shape else None)
    if out.dtype != b.dtype:
        raise ValueError(f"{name} returned {value.dtype}, which would turn the {b.dtype} stream to {out.dtype}")
    if undone and not isinstance(b, FakeTensor) and not rule.is_invertible(value) and all_finite(b, *a):
        raise FloatingPointError(
            f"{name} gave a scale that is 0 to rounding, infinite or NaN, so its coupling can't be inverted; look at its weights,"
            " bound its scale (coupling='affine:tanh' has scales between 1/e and e), or go on with strategy 'stored'"
        )
    return out


class _End(torch.autograd.Function):
    """The end of a chain: keeps its outputs, the only activations that `reconstructed` keeps.

    One node for all streams, so that backward passes every half step even if the loss uses one of them
    only. `save_for_backward` gives what the caller may rely on: a changed output raises, and so does a
    second backward through a graph that was freed.
    """

    @staticmethod
    def forward(ctx: Any, tape: Tape, *state: Tensor) -> State:
        ctx.set_materialize_grads(False)
        outputs = tuple(stream.detach() for stream in state)
        ctx.tape = tape
        ctx.save_for_backward(*outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.tape.begin(ctx.saved_tensors)
        return None, *grads


class _EndJoined(torch.autograd.Function):
    """Does what `_End` does for a caller that wants one tensor: that tensor is what is kept."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, dim: int, *state: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        joined = torch.cat(state, dim)
        ctx.tape, ctx.dim, ctx.count = tape, dim, len(state)
        ctx.save_for_backward(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        (joined,) = ctx.saved_tensors
        ctx.tape.begin(joined.chunk(ctx.count, ctx.dim))
        return None, None, *([None] * ctx.count if grad is None else grad.chunk(ctx.count, ctx.dim))


@outside_graphs
def reconstructed(
    half_steps: Sequence[tuple[HalfStep, str, Call | None]],
    state: State,
    *,
    coupling: Coupling,
    join_dim: int | None = None,
    kept_half_blocks: int = 0,
    witness: Witness | None = None,
    tripwire: bool = True,
    structures: Structures | None = None,
) -> State | Tensor:
    """Run half steps, keeping only the last streams for backward.

    Args:
        half_steps: each with its name for errors, and what its function is called with beside the streams.
        state: the streams that enter; same dtype and device.
        coupling: which the half steps are of.
        join_dim: return one tensor, the streams joined along this dimension.
        kept_half_blocks: the last so many half steps keep their activations, and are not run again.
        witness: sees the activations, and the reconstructed ones.
        tripwire: compare what the functions give in backward with what they gave in forward.
        structures: what is known of the functions from earlier calls of the chain.

    Returns:
        The streams that leave, or one tensor if `join_dim` is given.

    Raises:
        ValueError: a function returns another shape, or a dtype that would change the stream's.
        FloatingPointError: an activation is NaN or infinite (on the CPU, or with a witness), or a half step can't be undone.

    Reference: Gomez et al. 2017, equations 6 to 8 and Algorithm 1.
    """
    first = state[0]
    watch = tripwire and watchable(first)
    wire = Tripwire(torch.finfo(first.dtype).eps, immediate=first.device.type == "cpu") if watch else None
    kept = min(kept_half_blocks, len(half_steps))
    run_again = half_steps[: len(half_steps) - kept]
    entered = tuple(stream.detach() for stream in state)
    brought_back = [stream for _, stream in zip(run_again[1:], entered[1:], strict=False)]
    tape = Tape(witness, wire, [(Whole if coupling.keeps_first else Zeros)(stream) for stream in brought_back])
    whole, surroundings = functions_are_pytorchs(), Surroundings(first.device)
    structures = structures or Structures()
    steps = [
        Step(
            Recording(
                half_step.function,
                name,
                pytorch_is_whole=whole,
                surroundings=surroundings,
                structures=structures,
                arguments=Arguments(*given) if given else NO_ARGUMENTS,
            ),
            half_step.rule,
        )
        for half_step, name, given in run_again
    ]
    if all(recording.plain for recording, _ in steps):
        for recording, _ in steps:
            recording.prepare_first()
    if wire is not None and steps:
        wire.enter(entered)
    for step in steps:
        b, *a = state
        others = (*step.recording.parameters, *step.recording.arguments.tensors)
        state = (*a, _HalfStep.apply(tape, step, b, *a, *others))
    left = tuple(stream.detach() for stream in state)
    if wire is not None and steps:
        wire.leave(left)
    look = (first.device.type == "cpu" or witness is not None) and not isinstance(first, FakeTensor)
    if look and steps and not all_finite(*left):
        refuse_what_is_not_finite(steps, entered)
    if join_dim is not None and not kept:
        joined: Tensor = _EndJoined.apply(tape, join_dim, *state)
        return joined
    if steps:
        state = _End.apply(tape, *state)
    for half_step, name, given in half_steps[len(half_steps) - kept :]:
        b, *a = state
        args, kwargs = given or ((), {})
        value = half_step.function(*a, *args, **kwargs)
        _refuse_another_shape(name, b, value, half_step.rule)
        state = (*a, _join(half_step.rule, name, b, a, value, undone=False))
    return state if join_dim is None else torch.cat(state, join_dim)
