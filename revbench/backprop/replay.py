"""What a second call of a module need not do over again, and what its backward pass may write over.

Two savings, made in PyTorch's own `BatchNorm` and `ReLU` modules wherever they stand in the module that runs again:

- **batch statistics**: the first call notes the mean and the inverse standard deviation of each batch norm, 2C
  numbers; the second normalises with them, which spares the reduction, most of what batch norm costs on
  a CPU. The gradient is batch norm's own, with the derivatives of the statistics. With few values a channel they are
  computed again, for accuracy.
- **ReLU**: the gradient that enters it is written over with the one that leaves, if nobody else holds it: one
  tensor less at the worst moment of a half step.

Both give the bits that PyTorch's own operations give. On other devices than the CPU batch statistics are
computed again: the kernels there differ, and no measurement has shown yet that it pays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.ownership import Holders, gradient_is_ours

Forward = Callable[[Tensor], Tensor]
# As PyTorch made them: a class whose forward somebody replaced is somebody's own.
_BATCH_NORMS: dict[type[nn.Module], Any] = {
    kind: kind.forward for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
}
_RELU = nn.ReLU.forward
# Values a channel below which statistics are computed again: those of the reconstructed input take its error with them out of
# what is normalised. Reused, they make the error of 36 blocks 26 times as large at 4 values a channel, 1.05 times at
# 64, and smaller beyond (docs/explanation.md).
_FEWEST_VALUES = 64
_SMALL = 1 << 15  # numbers in an activation below which a function of autograd's in Python costs more than it saves


# Before PyTorch 2.7 nobody can tell whether hooks of saved tensors are set, and both savings are left out.
SAVES = hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks")

_RELUS_ARE_WATCHED: ContextVar[bool] = ContextVar("relus_are_watched", default=False)


@contextmanager
def watched_relus() -> Iterator[None]:
    """Inside, modules that will run again call PyTorch's own ReLU then, too: for somebody who follows its calls."""
    token = _RELUS_ARE_WATCHED.set(True)
    try:
        yield
    finally:
        _RELUS_ARE_WATCHED.reset(token)


class _StandIn:
    """What is called in place of a module's `forward` for the time of one call.

    Copied or pickled with the module meanwhile (an average of weights made in a hook), it becomes that `forward` again.
    """

    __slots__ = ("_forward", "_module")

    def __init__(self, module: nn.Module, forward: Forward) -> None:
        self._module, self._forward = module, forward

    def __call__(self, x: Tensor) -> Tensor:
        return self._forward(x)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._module, "forward")  # of the copy, which has none of its own yet


class BatchStatistics(NamedTuple):
    """Holds what one batch norm in training divided by, and the running values that it left behind.

    Attributes:
        mean, inverse_deviation: of each channel, ``(C,)``; the latter is ``1 / sqrt(var + eps)``.
        running_mean, running_var: after the call; None where nobody could read them.
    """

    mean: Tensor
    inverse_deviation: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None


class Norm:
    """A batch norm, and what is called in place of its `forward`: `noting` in a first call, `replaying` in a later one.

    Attributes:
        noted: the statistics of the call that runs or is repeated, in the order of its uses.
        untouched: no later call reads its running values or changes them.
    """

    def __init__(self, norm: Any) -> None:
        self.norm = norm
        self.noting, self.replaying = _StandIn(norm, self.note), _StandIn(norm, self.replay)
        self.noted: list[BatchStatistics | None] = []
        self.untouched = False
        self._next = 0
        self._plain: Forward = type(norm).forward.__get__(norm)

    def begin(self, noted: list[BatchStatistics | None], *, untouched: bool) -> None:
        """Get ready for a call."""
        self.noted, self.untouched, self._next = noted, untouched, 0

    def note(self, x: Tensor) -> Tensor:
        """Returns what the batch norm gives in a first call."""
        norm = self.norm
        few = x.numel() < _SMALL or x.dim() < 2 or x.numel() < _FEWEST_VALUES * x.shape[1]
        if few or not norm.training or not _is_ordinary(x) or not _is_sound(norm, x):
            self.noted.append(None)
            return self._plain(x)
        norm._check_input_dim(x)
        mean, var, momentum = None, None, norm.momentum
        if norm.track_running_stats:
            mean, var = norm.running_mean, norm.running_var
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
                if momentum is None:
                    momentum = 1.0 / float(norm.num_batches_tracked)
        out, *found = torch.native_batch_norm(x, norm.weight, norm.bias, mean, var, True, momentum or 0.0, norm.eps)
        running = (None if r is None or self.untouched else r.clone() for r in (mean, var))
        self.noted.append(BatchStatistics(*found, *running))
        return out

    def replay(self, x: Tensor) -> Tensor:
        """Returns what it gives in a later one."""
        norm = self.norm
        noted = self.noted[self._next] if self._next < len(self.noted) else None
        self._next += 1
        if noted is None or not norm.training or not _is_ordinary(x) or not _fit(noted, x, norm.weight):
            if self.untouched and norm.training:
                return F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
            return self._plain(x)
        if noted.running_mean is not None:
            norm.running_mean.copy_(noted.running_mean)
            norm.running_var.copy_(noted.running_var)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
        out: Tensor = _KnownStatistics.apply(x, norm.weight, norm.bias, noted.mean, noted.inverse_deviation, norm.eps)
        return out


class Relu:
    """A ReLU, and what is called in place of its `forward` in a later call.

    Attributes:
        alone: what the holders of a gradient are that may be written over.
    """

    def __init__(self, relu: nn.ReLU) -> None:
        self.relu = relu
        self.alone: Holders | None = None
        self.replaying = _StandIn(relu, self.replay)
        self._plain: Forward = nn.ReLU.forward.__get__(relu)

    def replay(self, x: Tensor) -> Tensor:
        """Returns what it gives in a later call: its backward writes over the gradient that enters it, where nobody else holds
        that."""
        if (
            x.numel() < _SMALL
            or not (x.requires_grad and torch.is_grad_enabled() and _is_ordinary(x))
            or (self.relu.inplace and x._is_view())
        ):
            return self._plain(x)
        out: Tensor = _ThriftyRelu.apply(x, self.relu.inplace, self.alone)
        return out


class StandIns:
    """The batch norms and ReLUs of a module, and what stands in for them; not those that somebody else replaced already.

    Args:
        modules: all modules of the one that is called twice.
        layers: all that this calls, one after the other, if that is all that it does.

    Attributes:
        first, again: what to call in place of the whole module; None if it does more than call its layers.
    """

    def __init__(self, modules: Sequence[nn.Module], layers: Sequence[nn.Module] | None) -> None:
        known = [m for m in modules if "forward" not in m.__dict__]
        self.norms = [Norm(m) for m in known if type(m).forward is _BATCH_NORMS.get(type(m))]
        self.relus = [Relu(m) for m in known if type(m) is nn.ReLU and nn.ReLU.forward is _RELU]
        self.first = self.again = None
        if layers is not None:
            noting = {stand_in.norm: stand_in.note for stand_in in self.norms}
            replaying: dict[nn.Module, Forward] = {stand_in.norm: stand_in.replay for stand_in in self.norms}
            replaying |= {stand_in.relu: stand_in.replay for stand_in in self.relus}
            self.first = [noting.get(layer, layer.forward) for layer in layers]
            self.again = [replaying.get(layer, layer.forward) for layer in layers]


class Savings:
    """The statistics that one call of a module had, for those that repeat it.

    Args:
        stand_ins: of the module.
        private: nobody but the batch norms themselves reads their running values.
    """

    def __init__(self, stand_ins: StandIns, *, private: bool) -> None:
        self._stand_ins = stand_ins
        self._private = private
        self._watched = _RELUS_ARE_WATCHED.get()
        self._untouched: frozenset[nn.Module] = frozenset()
        self._noted: list[list[BatchStatistics | None]] = [[] for _ in stand_ins.norms]

    def untouched(self) -> frozenset[nn.Module]:
        """Returns, before the first call, the batch norms whose buffers no later call will read or change."""
        norms = self._stand_ins.norms if self._private else ()
        self._untouched = frozenset(known.norm for known in norms if known.norm.training)
        return self._untouched

    def first(self) -> Sequence[Forward] | None:
        """Returns the functions that a first call is, if it is nothing but one after the other.

        They are the same as `begin_noting`, the call of the module and `end`, without anything put into the modules.
        """
        self._begin(anew=True)
        return self._stand_ins.first

    def again(self, alone: Holders | None) -> Sequence[Forward] | None:
        """Returns those of a later call, likewise; `alone` as of `Relu`."""
        self._begin(anew=False, alone=alone)
        return self._stand_ins.again if not self._watched else None

    def _begin(self, *, anew: bool, alone: Holders | None = None) -> None:
        for relu in self._stand_ins.relus:
            relu.alone = alone
        for known, noted in zip(self._stand_ins.norms, self._noted, strict=True):
            if anew:
                noted.clear()
            known.begin(noted, untouched=known.norm in self._untouched)

    def begin_noting(self) -> None:
        """Have batch norms note, in the first call and after `untouched`, their statistics until `end`."""
        self._begin(anew=True)
        for known in self._stand_ins.norms:
            known.norm.__dict__["forward"] = known.noting

    def begin_replaying(self, alone: Holders | None) -> None:
        """Have batch norms take the statistics that they noted, and ReLUs back-propagate in place, until `end`."""
        self._begin(anew=False, alone=alone)
        for known in self._stand_ins.norms:
            known.norm.__dict__["forward"] = known.replaying
        if not self._watched:
            for known_relu in self._stand_ins.relus:
                known_relu.relu.__dict__["forward"] = known_relu.replaying

    def end(self) -> None:
        """Puts everything back after either."""
        for known in self._stand_ins.norms:
            known.norm.__dict__.pop("forward", None)
        for known_relu in self._stand_ins.relus:
            known_relu.relu.__dict__.pop("forward", None)


def _is_ordinary(x: Tensor) -> bool:
    """Tells whether nothing that surrounds this call expects PyTorch's own operations and what they save.

    Not inside a checkpoint or another saver of tensors, whose recomputation comes after ours and must save the same;
    not under a transform of `torch.func`; not for a tensor of another kind.
    """
    return (
        (type(x) is Tensor or isinstance(x, FakeTensor))
        and x.layout is torch.strided
        and not torch._C._are_functorch_transforms_active()
        and _nobody_saves()
    )


def _nobody_saves() -> bool:
    """Tells whether no hooks of saved tensors are set."""
    return SAVES and torch._C._autograd._top_saved_tensors_default_hooks(True) is None


def _is_sound(norm: Any, x: Tensor) -> bool:
    """Tells whether PyTorch would not refuse this input; else it shall, since the kernel itself does not look."""
    channels = x.shape[1] if x.device.type == "cpu" and x.dim() >= 2 else -1
    given = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return x.numel() > channels >= 0 and all(t is None or t.numel() == channels for t in given)


def _fit(noted: BatchStatistics, x: Tensor, weight: Tensor | None) -> bool:
    """Tells whether these are the statistics of such an input, in a dtype in which `_KnownStatistics` rounds as PyTorch does."""
    kinds = {noted.mean.dtype} | ({weight.dtype} if weight is not None else set())
    return noted.mean.numel() == x.shape[1] and kinds in ({torch.float32}, {torch.float64})


class _KnownStatistics(torch.autograd.Function):
    """Batch norm in training whose forward pass is told the statistics; its backward is PyTorch's."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        inverse_deviation: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(x, weight, mean, inverse_deviation)
        # The kernel of eval(), told a variance of 1: it multiplies by `scale` as that of train() does, bit for bit.
        scale = inverse_deviation if weight is None else inverse_deviation * weight
        out: Tensor = torch.native_batch_norm(x, scale, bias, mean, torch.ones_like(mean), False, 0.0, 0.0)[0]
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_deviation = ctx.saved_tensors
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse_deviation, True, ctx.eps, list(ctx.needs_input_grad[:3])
        )
        return *grads, None, None, None


class _ThriftyRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool, alone: Holders | None) -> Tensor:
        ctx.alone = alone
        if in_place:
            ctx.mark_dirty(x)
        out = x.relu_() if in_place else x.relu()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (out,) = ctx.saved_tensors
        same_layout = grad.stride() == out.stride() and grad.dtype == out.dtype
        if same_layout and gradient_is_ours(grad, ctx.alone) and not torch.is_grad_enabled():
            torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
            return grad, None, None
        return torch.ops.aten.threshold_backward(grad, out, 0), None, None
