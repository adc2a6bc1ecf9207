"""Batch norm over the batches of all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from revbench.case import is_gpu

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics in training are those of all processes' batches together, which are of one size.

    For the CPU, which PyTorch's own `torch.nn.SyncBatchNorm` refuses. Each process's mean and variance go into a slot of
    its own, one sum fills all slots, and they are combined without cancellation (Chan et al. 1983). Without a process group
    it is ordinary batch norm. Parameters and buffers have `torch.nn.BatchNorm2d`'s names.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``(B, C, ...)`` to the same shape."""
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        x = input.float() if input.dtype in (torch.bfloat16, torch.float16) else input  # as PyTorch's kernels compute
        own_variance, own_mean = torch.var_mean(x, axes, correction=0)
        slots = x.new_zeros(dist.get_world_size(), 2, self.num_features)
        slots = slots.index_copy(
            0, torch.tensor([dist.get_rank()], device=input.device), torch.stack([own_mean, own_variance])[None]
        )
        means, variances = summed(slots).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._follow(mean, variance, input.numel() // self.num_features * dist.get_world_size())
        shape = [1, -1, *[1] * (input.dim() - 2)]
        out: Tensor = (x - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = torch.addcmul(self.bias.to(x.dtype).view(shape), out, self.weight.to(x.dtype).view(shape))
        return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance * (count / (count - 1)))):
            running.lerp_(now.to(running.dtype), momentum)


class _Sum(torch.autograd.Function):
    """The sum over all processes, which is also its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.clone()
        dist.all_reduce(grad)
        return grad


def summed(x: Tensor) -> Tensor:
    """Returns the sum of a tensor over all processes; its gradient is that of the sum of all processes' losses."""
    out: Tensor = _Sum.apply(x)
    return out


def synchronise_batch_norm(model: nn.Module, device: str) -> nn.Module:
    """Replace every batch norm of a model by one that is synchronised; its parameters and buffers stay the same tensors.

    On a GPU by PyTorch's own.

    Returns:
        The model itself, or its replacement if it is a batch norm.
    """
    if is_gpu(device):
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return converted
    if type(model) in _BATCH_NORMS:
        old: Any = model
        new = SynchronisedBatchNorm(
            old.num_features, old.eps, old.momentum, old.affine, old.track_running_stats, device="meta"
        )
        new._parameters, new._buffers, new.training = old._parameters, old._buffers, old.training
        return new
    for name, child in model.named_children():
        if (new_child := synchronise_batch_norm(child, device)) is not child:
            setattr(model, name, new_child)
    return model
