"""How many GPUs PyTorch can use, and whether they can compute as somebody asks."""

from __future__ import annotations

import torch

from revbench.case import index_in
from revbench.errors import UserError


def usable_gpus() -> int:
    """Returns the number of GPUs that this process can compute on; it begins with CUDA.

    `torch.cuda.device_count` asks NVML, which counts physical GPUs: with MIG the CUDA runtime, which has the last word, has
    fewer.
    """
    return int(torch._C._cuda_getDeviceCount()) if torch.cuda.is_available() else 0


def index_of(device: str) -> int:
    """Returns the number of a GPU; nothing of it is used yet.

    Args:
        device: ``cuda`` or ``cuda:N``.

    Raises:
        UserError: it is not there.
    """
    count = usable_gpus()
    if not count:
        raise UserError(f"device {device!r} is not there: PyTorch finds no CUDA device; use cpu")
    index = index_in(device)
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise UserError(f"device {device!r} is not there: PyTorch finds {there}")
    return index


def has_tf32() -> bool:
    """Tells whether the current GPU computes with TF32: NVIDIA's from Ampere on."""
    return torch.version.hip is None and torch.cuda.get_device_capability() >= (8, 0)


def has_bfloat16() -> bool:
    """Tells whether the current GPU computes with bfloat16, and does not only emulate it."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
