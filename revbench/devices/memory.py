"""When a device has no memory left, and how much of a limit it has."""

from __future__ import annotations

import re

import torch

# What the libraries below PyTorch say; they raise a plain RuntimeError, or torch.AcceleratorError from 2.8 on.
_NO_MEMORY_LEFT = (
    "can't allocate memory", "not enough memory",  # the CPU's allocator
    "CUDA error: out of memory", "CUDA driver error: out of memory", "CUDA out of memory", "HIP error: out of memory",
    "HIP out of memory", "OutOfMemoryError",  # the last three also inside of what the compiler raises
    "CUBLAS_STATUS_ALLOC_FAILED", "HIPBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUSOLVER_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory", "Triton Error [HIP]: out of memory",
)  # fmt: skip

# A card of 80 GB, 40 GB or 24 GB has a little less than that many GiB: a limit of its name means all that it has.
_NAMED_AFTER = 1.1


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error of a device, or of a library that runs on it, says that there is no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    said = any(words in text for words in _NO_MEMORY_LEFT) or re.search(r"Cuda failure.*out of memory", text)  # NCCL's
    return isinstance(error, RuntimeError) and bool(said)


def within_limit_bytes(limit_bytes: int) -> int:
    """Returns how much of a limit the current GPU has: all of it, or what is free of a GPU that is named after it.

    Raises:
        NotImplementedError: the limit is that of a larger GPU, or others use the GPU.
    """
    free, there = torch.cuda.mem_get_info()
    if limit_bytes > _NAMED_AFTER * there:
        raise NotImplementedError(f"the limit of {limit_bytes} bytes is more than the GPU's {there}")
    if limit_bytes > _NAMED_AFTER * free:
        raise NotImplementedError(f"of the limit of {limit_bytes} bytes only {free} are free: others use the GPU")
    return min(limit_bytes, free)
