"""The strategy `reconstructed`: back-propagation through a chain of additive couplings without its activations.

A block ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` is two half steps of one form, ``out = b + m(a)``. Each is one
autograd node. Forward keeps nothing but the chain's last pair. Backward goes through Algorithm 1 of Gomez
et al. 2017 half a block at a time: run ``m(a)`` again, once, with graph; take its value to undo the addition,
``b = out - m(a)``, and its graph for the gradient. Autograd itself sums and frees the gradients of the
stream, and since parameters are inputs of the node, hooks, frozen parameters, `torch.autograd.grad` and
DistributedDataParallel find what they expect.

Live at the worst moment, H being one half of the activations: 2H stream, 2H its gradients, the graph of one
half step, and what autograd's backward of that graph allocates.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.arguments import NO_ARGUMENTS, Arguments, ChainArguments
from revbench.backprop.certificate import Witness
from revbench.backprop.compiling import outside_graphs
from revbench.backprop.finite import all_finite, refuse_what_is_not_finite
from revbench.backprop.ownership import memory_is_ours
from revbench.backprop.plain import functions_are_pytorchs
from revbench.backprop.recording import Recording
from revbench.backprop.second_call import SecondCall, Wanted
from revbench.backprop.stream import FloatStream
from revbench.backprop.structure import Structures
from revbench.backprop.surroundings import Surroundings
from revbench.backprop.suspicion import watchable
from revbench.backprop.tape import Tape, call_again
from revbench.backprop.tripwire import Tripwire
from revbench.backprop.zeros import Zeros

NO_SECOND_DERIVATIVE = (
    "second derivatives (create_graph=True) are not possible through strategy {strategy!r};"
    " set model.strategy = 'stored' for this pass"
)


class _HalfStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tape: Tape, recording: Recording, a: Tensor, b: Tensor, *others: Tensor) -> Tensor:
        """Returns ``b + m(a)``; `others` are the parameters of m, then the tensors of its arguments."""
        ctx.set_materialize_grads(False)
        if tape.witness is not None:
            tape.witness.note(recording.name, b)
        arguments = others[len(recording.parameters) :]
        _, _, needs_a, _, *needs_others = ctx.needs_input_grad
        value = recording.first(a, *arguments, needs=(needs_a, *needs_others[len(recording.parameters) :]))
        _refuse_another_shape(recording.name, b, value)
        if recording.hooks_input:
            raise RuntimeError(
                f"{recording.name} hooks the gradient of its input (or retains it), which under plain autograd is that of the"
                " whole stream, and here only this function's share; hook a copy (x.clone()), or set strategy 'stored'"
            )
        if tape.witness is not None:
            tape.witness.note_value(recording.name, value)
        if tape.tripwire is not None:  # before the addition, which then finds the value in the cache
            tape.tripwire.note(recording.name, recording.module, value, recording.arithmetic(value))
        spare = recording.eager and tape.witness is None and value is not a and value.stride() == b.stride()
        out = _add(tape.stream, recording.name, b, value, spare=spare and memory_is_ours(value))
        ctx.strides = a.stride(), b.stride()
        ctx.save_for_backward(*arguments)
        ctx.tape, ctx.recording, ctx.index = tape, recording, len(tape.recordings)
        if tape.first_with_gradient is None and any(ctx.needs_input_grad):
            tape.first_with_gradient = len(tape.recordings)
        tape.recordings.append(recording)
        return out

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None) -> tuple[Tensor | None, ...]:
        """Half a block of Algorithm 1: ``m(a)`` once more; its value undoes the addition, its graph gives the gradient."""
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE.format(strategy="reconstructed"))
        tape: Tape = ctx.tape
        recording: Recording = ctx.recording
        wanted = Wanted.of(ctx.needs_input_grad, len(recording.parameters), grad_out)
        last = ctx.index == tape.first_with_gradient
        # No name for `out` where `undo` must be able to free it.
        a, last_out = tape.end() if last else (tape.pair()[0], None)
        if a.stride() != ctx.strides[0]:  # a layout that this function was not shown
            a = torch.empty_strided(a.shape, ctx.strides[0], dtype=a.dtype, device=a.device).copy_(a)
        of_inputs, of_parameters = wanted.nothing()
        if wanted.any or not last:
            second = SecondCall(recording, (a, *ctx.saved_tensors), differentiate=wanted.any, alone=tape.alone)
            residual = second.take_value(a.dtype)
            weighed = _look_at(residual, tape, ctx.index, recording, a)
            if not last:  # b = out - m(a)
                tape.undo(residual, spare=second.edge is not None and residual.stride() == ctx.strides[1])
            del residual  # before its graph is gone through
            if second.edge is not None and wanted.any:
                assert grad_out is not None
                of_inputs, of_parameters = second.gradients(grad_out, wanted)
            if ctx.index == 1 and not last:
                tape.put_zeros_back()
            if tape.witness is not None and not last:
                again = functools.partial(recording.once_more, (a, *ctx.saved_tensors), differentiate=wanted.any)
                tape.witness.compare(recording.name, tape.pair()[0], weighed, again)
        if last:
            tape.settle(ctx.index, a, last_out)
        of_a, *of_arguments = of_inputs
        return None, None, of_a, grad_out if wanted.of_b else None, *of_parameters, *of_arguments


def _look_at(residual: Tensor, tape: Tape, index: int, recording: Recording, a: Tensor) -> Any:
    """Show the value of a second call to tripwire and witness; what the latter says of it."""
    if tape.tripwire is not None:
        for suspicion in tape.tripwire.look(index, residual):
            suspicion.settle(a, functools.partial(call_again, recording))
    return tape.witness.digest_residual(residual) if tape.witness is not None else None


def _refuse_another_shape(name: str, b: Tensor, value: Any) -> None:
    """Raise if `value` is not a tensor of the shape of the half that it is to be added to."""
    if not isinstance(value, Tensor) or value.shape != b.shape:
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"{name} returned {found}; it must return one tensor, of the shape {tuple(b.shape)} of the half that it is added to"
        )


def _add(stream: FloatStream, name: str, b: Tensor, value: Tensor, *, spare: bool = False) -> Tensor:
    """Returns ``b + value``, if that has the dtype of the stream; written over `value` if that is `spare`.

    Raises:
        ValueError: `value` has a dtype that would change the stream's.
    """
    out = stream.add(b, value, into=value if spare and value.dtype is b.dtype else None)
    if out.dtype != b.dtype:
        raise ValueError(f"{name} returned {value.dtype}, which would turn the {b.dtype} stream to {out.dtype}")
    return out


class _End(torch.autograd.Function):
    """The end of a chain: keeps its outputs, the only activations that `reconstructed` keeps.

    One node for both halves, so that backward passes every half step even if the loss uses one half
    only. `save_for_backward` gives what the caller may rely on: a changed output raises, and so does a
    second backward through a graph that was freed.
    """

    @staticmethod
    def forward(ctx: Any, tape: Tape, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        outputs = y1.detach(), y2.detach()
        ctx.tape = tape
        ctx.save_for_backward(*outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, grad1: Tensor | None, grad2: Tensor | None) -> tuple[Tensor | None, ...]:
        y1, y2 = ctx.saved_tensors
        ctx.tape.begin(y1, y2)
        return None, grad1, grad2


class _EndJoined(torch.autograd.Function):
    """Does what `_End` does for a caller that wants one tensor: that tensor is what is kept."""

    @staticmethod
    def forward(ctx: Any, tape: Tape, y1: Tensor, y2: Tensor, dim: int) -> Tensor:
        ctx.set_materialize_grads(False)
        joined = torch.cat((y1, y2), dim)
        ctx.tape, ctx.dim = tape, dim
        ctx.save_for_backward(joined)
        return joined

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        (joined,) = ctx.saved_tensors
        y1, y2 = joined.chunk(2, ctx.dim)
        ctx.tape.begin(y1, y2)
        grad1, grad2 = (None, None) if grad is None else grad.chunk(2, ctx.dim)
        return None, grad1, grad2, None


@outside_graphs
def reconstructed(
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    x1: Tensor,
    x2: Tensor,
    *,
    stream: FloatStream,
    first_block: int = 0,
    join_dim: int | None = None,
    kept_half_blocks: int = 0,
    witness: Witness | None = None,
    arguments: ChainArguments | None = None,
    tripwire: bool = True,
    structures: Structures | None = None,
) -> tuple[Tensor, Tensor] | Tensor:
    """Run additive coupling blocks, keeping only their last pair for backward.

    Args:
        pairs: ``(F, G)`` of each block; each maps a half to a tensor of the same shape.
        x1, x2: the halves; same shape, dtype and device.
        stream: how a half step is added and undone.
        first_block: number of the first block, for error messages.
        join_dim: return one tensor, the halves joined along this dimension.
        kept_half_blocks: the last so many half steps keep their activations, and are not run again.
        witness: sees the activations, and the reconstructed ones.
        arguments: what each F and G is called with beside its half.
        tripwire: compare what the functions give in backward with what they gave in forward.
        structures: what is known of the functions from earlier calls of the chain.

    Returns:
        ``(y1, y2)``, or one tensor if `join_dim` is given.

    Raises:
        ValueError: a block returns another shape, or a dtype that would change the stream's.
        FloatingPointError: an activation is NaN or infinite (on the CPU, or with a witness).

    Reference: Gomez et al. 2017, equations 6 to 8 and Algorithm 1.
    """
    watch = tripwire and watchable(x1)
    immediate = x1.device.type == "cpu"
    wire = Tripwire(torch.finfo(x1.dtype).eps, immediate=immediate) if watch else None
    functions = [
        (module, f"block {first_block + i}'s {'FG'[which]}", arguments.of(i, which) if arguments else None)
        for i, pair in enumerate(pairs)
        for which, module in enumerate(pair)
    ]
    # Half step by half step ``a, b <- b + m(a), a``: F takes x2 and adds to x1, G takes that and adds to x2.
    a, b = x2, x1
    kept = min(kept_half_blocks, len(functions))
    tape = Tape(stream, witness, wire, Zeros(x2) if len(functions) - kept > 1 else None)
    whole, surroundings = functions_are_pytorchs(), Surroundings(x1.device)
    recordings = [
        Recording(
            module,
            name,
            pytorch_is_whole=whole,
            surroundings=surroundings,
            structures=structures or Structures(),
            arguments=Arguments(*given) if given else NO_ARGUMENTS,
        )
        for module, name, given in functions[: len(functions) - kept]
    ]
    if all(recording.plain for recording in recordings):
        for recording in recordings:
            recording.prepare_first()
    if tape.tripwire is not None and recordings:
        tape.tripwire.enter(a.detach(), b.detach())
    for recording in recordings:
        others = (*recording.parameters, *recording.arguments.tensors)
        a, b = _HalfStep.apply(tape, recording, a, b, *others), a
    if tape.tripwire is not None and recordings:
        tape.tripwire.leave(b.detach(), a.detach())
    look = (a.device.type == "cpu" or witness is not None) and not isinstance(a, FakeTensor)
    if look and recordings and not all_finite(a.detach(), b.detach()):
        refuse_what_is_not_finite(recordings, x2.detach(), x1.detach(), stream)
    if join_dim is not None and not kept:
        joined: Tensor = _EndJoined.apply(tape, b, a, join_dim)
        return joined
    if recordings:
        b, a = _End.apply(tape, b, a)
    for module, name, given in functions[len(functions) - kept :]:
        args, kwargs = given or ((), {})
        value = module(a, *args, **kwargs)
        _refuse_another_shape(name, b, value)
        a, b = _add(stream, name, b, value), a
    return (b, a) if join_dim is None else torch.cat((b, a), join_dim)
