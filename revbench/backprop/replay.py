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
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from revbench.backprop.ownership import gradient_is_ours

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


_relus_are_watched = False


@contextmanager
def watched_relus() -> Iterator[None]:
    """Inside, modules that will run again call PyTorch's own ReLU then, too: for somebody who follows its calls."""
    global _relus_are_watched
    before, _relus_are_watched = _relus_are_watched, True
    try:
        yield
    finally:
        _relus_are_watched = before


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
    """Of one batch norm in training: what it divided by, and the running values that it left behind.

    Attributes:
        mean, inverse_deviation: of each channel, ``(C,)``; the latter is ``1 / sqrt(var + eps)``.
        running_mean, running_var: after the call; None where nobody could read them.
    """

    mean: Tensor
    inverse_deviation: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None


class Savings:
    """The batch norms and ReLUs of a module, and the statistics that one call of it had.

    Args:
        modules: all modules of the one that is called twice.
        private: nobody but the batch norms themselves reads their running values.
    """

    def __init__(self, modules: Sequence[nn.Module], *, private: bool) -> None:
        known = [m for m in modules if "forward" not in m.__dict__]  # else somebody else replaced it already
        self._norms: list[Any] = [m for m in known if type(m).forward is _BATCH_NORMS.get(type(m))]
        relus = [m for m in known if type(m) is nn.ReLU and nn.ReLU.forward is _RELU]
        self._thrifty = [] if _relus_are_watched else [(relu, _thrifty(relu)) for relu in relus]
        self._private = private
        self._untouched: frozenset[nn.Module] = frozenset()
        self._noted: list[list[BatchStatistics | None]] = [[] for _ in self._norms]
        self._notings = [self._noting(norm, noted) for norm, noted in zip(self._norms, self._noted, strict=True)]

    def untouched(self) -> frozenset[nn.Module]:
        """Before the first call: batch norms whose buffers no later call will read or change."""
        self._untouched = frozenset(norm for norm in self._norms if self._private and norm.training)
        return self._untouched

    def begin_noting(self) -> None:
        """Before the first call, after `untouched`: batch norms note their statistics until `end_noting`."""
        for norm, noted, noting in zip(self._norms, self._noted, self._notings, strict=True):
            noted.clear()
            norm.__dict__["forward"] = _StandIn(norm, noting)

    def end_noting(self) -> None:
        """After the first call."""
        for norm in self._norms:
            del norm.__dict__["forward"]

    def replays(self) -> list[tuple[nn.Module, Forward]]:
        """For a later call, what the modules' `forward` must be: batch norms take the statistics that they noted, ReLUs
        back-propagate in place.
        """
        norms = (
            (norm, self._replaying(norm, iter(noted))) for norm, noted in zip(self._norms, self._noted, strict=True)
        )
        return [(module, _StandIn(module, forward)) for module, forward in (*norms, *self._thrifty)]

    def _noting(self, norm: Any, noted: list[BatchStatistics | None]) -> Forward:
        plain: Forward = type(norm).forward.__get__(norm)

        def forward(x: Tensor) -> Tensor:
            few = x.numel() < _SMALL or x.dim() < 2 or x.numel() < _FEWEST_VALUES * x.shape[1]
            if few or not norm.training or not _is_ordinary(x) or not _is_sound(norm, x):
                noted.append(None)
                return plain(x)
            norm._check_input_dim(x)
            mean, var, momentum = None, None, norm.momentum
            if norm.track_running_stats:
                mean, var = norm.running_mean, norm.running_var
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.add_(1)
                    if momentum is None:
                        momentum = 1.0 / float(norm.num_batches_tracked)
            out, *found = torch.native_batch_norm(x, norm.weight, norm.bias, mean, var, True, momentum or 0.0, norm.eps)
            running = (None if r is None or norm in self._untouched else r.clone() for r in (mean, var))
            noted.append(BatchStatistics(*found, *running))
            return out

        return forward

    def _replaying(self, norm: Any, left: Iterator[BatchStatistics | None]) -> Forward:
        plain: Forward = type(norm).forward.__get__(norm)

        def forward(x: Tensor) -> Tensor:
            noted = next(left, None)
            if noted is None or not norm.training or not _is_ordinary(x) or not _fit(noted, x, norm.weight):
                if norm in self._untouched and norm.training:
                    return F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
                return plain(x)
            if noted.running_mean is not None:
                norm.running_mean.copy_(noted.running_mean)
                norm.running_var.copy_(noted.running_var)
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked.add_(1)
            out: Tensor = _KnownStatistics.apply(
                x, norm.weight, norm.bias, noted.mean, noted.inverse_deviation, norm.eps
            )
            return out

        return forward


def _is_ordinary(x: Tensor) -> bool:
    """Whether nothing that surrounds this call expects PyTorch's own operations and what they save.

    Not inside a checkpoint or another saver of tensors, whose recomputation comes after ours and must save the same;
    not under a transform of `torch.func`; not for a tensor of another kind.
    """
    return (
        (type(x) is Tensor or isinstance(x, FakeTensor))
        and x.layout is torch.strided
        and not torch._C._are_functorch_transforms_active()
        and torch._C._autograd._top_saved_tensors_default_hooks(True) is None
    )


def _is_sound(norm: Any, x: Tensor) -> bool:
    """Whether PyTorch would not refuse this input; else it shall, since the kernel itself does not look."""
    channels = x.shape[1] if x.device.type == "cpu" and x.dim() >= 2 else -1
    given = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return x.numel() > channels >= 0 and all(t is None or t.numel() == channels for t in given)


def _fit(noted: BatchStatistics, x: Tensor, weight: Tensor | None) -> bool:
    """Whether these are the statistics of such an input, in a dtype in which `_KnownStatistics` rounds as PyTorch does."""
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


def _thrifty(relu: nn.ReLU) -> Forward:
    plain: Forward = nn.ReLU.forward.__get__(relu)

    def forward(x: Tensor) -> Tensor:
        if (
            x.numel() < _SMALL
            or not (x.requires_grad and torch.is_grad_enabled() and _is_ordinary(x))
            or (relu.inplace and x._is_view())
        ):
            return plain(x)
        out: Tensor = _Relu.apply(x, relu.inplace)
        return out

    return forward


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(x)
        out = x.relu_() if in_place else x.relu()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (out,) = ctx.saved_tensors
        same_layout = grad.stride() == out.stride() and grad.dtype == out.dtype
        if same_layout and gradient_is_ours(grad) and not torch.is_grad_enabled():
            torch.ops.aten.threshold_backward.grad_input(grad, out, 0, grad_input=grad)
            return grad, None
        return torch.ops.aten.threshold_backward(grad, out, 0), None
