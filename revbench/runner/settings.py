"""What a case says of the whole process: set before anything is built, set again after that, and looked at in the end."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

from revbench.case import Case, index_in
from revbench.errors import UserError

if TYPE_CHECKING:
    from revbench.probes.nvml import Reading

# The fields of a case that `Settings` sets for the whole process.
SETTINGS = (
    "allocator", "threads", "device", "tf32_matmul", "tf32_convolution", "cudnn_benchmark", "deterministic",
    "memory_limit_bytes",
)  # fmt: skip


class Settings:
    """The settings of a case in this process.

    A network's own code can set the same things, when it is imported, built or called: `apply` is for before and after building,
    `check` for the end.

    Args:
        case: what says them; of a group its first, since all of a group agree (`revbench.runner.session`).

    Attributes:
        device_before: bytes in use on the whole GPU before this process used it (NVML); None on the CPU.
    """

    def __init__(self, case: Case) -> None:
        self._case = case
        self._threads = case.threads
        self.device_before: Reading | None = None

    def begin(self) -> None:
        """Set what can be set once in a process, then `apply`.

        Raises:
            UserError: a CUDA device is asked for that is not there.
            NotImplementedError: the device lacks the memory or the arithmetic.
        """
        case = self._case
        set_malloc(case.allocator)
        if case.on_gpu and case.deterministic:  # else PyTorch before 2.10 refuses products; read when CUDA begins
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        import torch

        if case.on_gpu:
            from revbench.devices.gpus import index_of
            from revbench.devices.memory import within_limit_bytes
            from revbench.probes.nvml import Gpu

            index = index_of(case.device)
            with Gpu.of_torch(index) as gpu:
                self.device_before = gpu.device_bytes()
            torch.cuda.set_device(index)
            if case.memory_limit_bytes:
                within_limit_bytes(case.memory_limit_bytes)  # or the case is refused
                there = torch.cuda.get_device_properties(index).total_memory
                torch.cuda.set_per_process_memory_fraction(min(case.memory_limit_bytes / there, 1.0))
        check_arithmetic(case)
        self._threads = case.threads or torch.get_num_threads()
        self.apply()

    def apply(self) -> None:
        """Set threads and kernels."""
        import torch

        from revbench.devices.float32 import set_float32

        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        set_float32(tf32_matmul=self._case.tf32_matmul, tf32_convolution=self._case.tf32_convolution)
        torch.backends.cudnn.benchmark = self._case.cudnn_benchmark
        torch.use_deterministic_algorithms(self._case.deterministic)
        if self._case.on_gpu:
            torch.cuda.set_device(index_in(self._case.device))

    def check(self) -> None:
        """See that everything is as it was set.

        Raises:
            RuntimeError: it is not, so that what was measured is not what the case says.
        """
        found, wanted = self._in_force(), self._wanted()
        for name, value in wanted.items():
            if found[name] != value:
                raise RuntimeError(
                    f"the network's own code set {name} to {found[name]} while it ran, where the case says {value}; take that"
                    " out of the network, or say so in the case"
                )

    def _wanted(self) -> Mapping[str, object]:
        case = self._case
        return {
            "threads": self._threads, "cudnn_benchmark": case.cudnn_benchmark, "deterministic": case.deterministic,
            "tf32_matmul": case.tf32_matmul, "tf32_convolution": case.tf32_convolution,
            "torch.backends.mkldnn's precision of float32": "float32",
            **({"the current CUDA device": index_in(case.device)} if case.on_gpu else {}),
        }  # fmt: skip

    def _in_force(self) -> Mapping[str, object]:
        import torch

        from revbench.devices.float32 import float32_in_force

        float32 = float32_in_force()
        return {
            "threads": torch.get_num_threads(), "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.are_deterministic_algorithms_enabled()
            and not torch.is_deterministic_algorithms_warn_only_enabled(),
            "tf32_matmul": float32.tf32_matmul,
            "tf32_convolution": float32.tf32_convolution,
            "torch.backends.mkldnn's precision of float32": "float32" if float32.exact_cpu else "less",
            **({"the current CUDA device": torch.cuda.current_device()} if self._case.on_gpu else {}),
        }  # fmt: skip


def check_arithmetic(case: Case) -> None:
    """See that the device can compute as a case asks.

    Raises:
        NotImplementedError: it has no such arithmetic; the row's status is ``unsupported``.
        UserError: a variable of the environment takes another one, whatever PyTorch is told.
    """
    import torch

    from revbench.devices.gpus import has_bfloat16, has_tf32

    cuda = case.on_gpu
    forced = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if cuda and forced in ("0", "1") and (int(forced), int(forced)) != (case.tf32_matmul, case.tf32_convolution):
        raise UserError(f"NVIDIA_TF32_OVERRIDE={forced} overrides what the case says of TF32; unset it")
    if case.tf32_matmul or case.tf32_convolution:
        name = torch.cuda.get_device_name() if cuda else "the CPU"
        if not cuda or not has_tf32():
            raise NotImplementedError(f"{name} has no TF32 arithmetic; it came with NVIDIA's Ampere")
    if cuda and "bfloat16" in (case.dtype, case.autocast) and not has_bfloat16():
        raise NotImplementedError(f"{torch.cuda.get_device_name()} has no bfloat16 arithmetic")
    if case.autocast != "none" and not cuda:
        with warnings.catch_warnings(record=True) as caught:  # PyTorch only warns, and goes on without autocast
            warnings.simplefilter("always")
            torch.autocast("cpu", dtype=getattr(torch, case.autocast))
        if caught:
            raise NotImplementedError(f"this PyTorch has no autocast to {case.autocast} on the CPU")


# What `mallopt` is told, by its parameters' numbers in malloc.h. The default values are those of mallopt(3), held fast: glibc
# moves its own thresholds with the largest block that was ever freed, in a forked worker also one that its server freed.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MALLOC: Mapping[str, Mapping[int, int]] = {
    "pinned": {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 256 << 20},
    "default": {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 128 << 10, _TRIM_THRESHOLD: 128 << 10, _TOP_PAD: 128 << 10},
}


def set_malloc(allocator: str) -> bool:
    """Tell glibc what to do with freed memory; by `mallopt`, since a variable of the environment would come too late for a
    forked process.

    Args:
        allocator: ``pinned`` keeps it, so that a step takes no page faults; ``default`` gives blocks above 128 KiB back.

    Returns:
        Whether this C library knows `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in _MALLOC[allocator].items())
