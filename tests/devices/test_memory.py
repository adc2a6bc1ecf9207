"""What counts as out of memory, and what a limit means on a GPU that is named after it."""

from __future__ import annotations

import pytest
import torch

from revbench.devices.memory import is_out_of_memory, within_limit_bytes
from revbench.runner.worker import classify

GIB = 2**30
KINDS = [RuntimeError, *([torch.AcceleratorError] if hasattr(torch, "AcceleratorError") else [])]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "words",
    [
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "HIP error: out of memory",
        "CUDA driver error: out of memory",
        "backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_out_of_memory_by_whichever_library(kind: type[Exception], words: str) -> None:
    assert is_out_of_memory(kind(words))
    assert classify(kind(words)) == "oom"


def test_the_classes_that_say_so() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError(
            "out of resource: shared memory, Required: 131072, Hardware limit: 101376"
        ),  # Triton, of one block
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        ValueError("CUDA error: out of memory"),
    ],
)
def test_what_is_something_else(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert classify(error) == "crashed"


@pytest.mark.parametrize(
    ("limit", "free", "there", "usable"),
    [
        (24 * GIB, 23.6 * GIB, 23.99 * GIB, 23.6 * GIB),
        (80 * GIB, 78.9 * GIB, 79.6 * GIB, 78.9 * GIB),
        (40 * GIB, 38.9 * GIB, 39.4 * GIB, 38.9 * GIB),
        (8 * GIB, 78.9 * GIB, 79.6 * GIB, 8 * GIB),
        (8 * GIB, 7.9 * GIB, 79.6 * GIB, 7.9 * GIB),
    ],
)
def test_a_limit_is_what_is_there(
    monkeypatch: pytest.MonkeyPatch, limit: int, free: float, there: float, usable: float
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (int(free), int(there)))
    assert within_limit_bytes(limit) == int(usable)


def test_a_limit_of_a_larger_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (15 * GIB, 16 * GIB))
    with pytest.raises(NotImplementedError, match="is more than the GPU's"):
        within_limit_bytes(24 * GIB)


def test_a_limit_that_others_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2 * GIB, 80 * GIB))
    with pytest.raises(NotImplementedError, match="are free: others use the GPU"):
        within_limit_bytes(8 * GIB)
