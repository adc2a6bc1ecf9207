"""Why the CPU is measured on a machine that has a GPU: the commonest failure in the field, said with its mend."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from revbench.errors import first_line

_NVIDIA, _DISPLAYS = "0x10de", ("0x0300", "0x0302")  # of PCI: the vendor; displays, and processors without one
_PCI, _WSL, _ROCM = Path("/sys/bus/pci/devices"), Path("/dev/dxg"), Path("/dev/kfd")
_NOBODY = (
    "Found no NVIDIA driver",
    "No CUDA GPUs are available",
    "not compiled with CUDA",
)  # says PyTorch, and no more


def why_no_gpu() -> str | None:
    """Returns why PyTorch can use no GPU although there seems to be one, in a line with the mend; None if there seems to be none.

    Call it first in a worker: it begins with CUDA, which speaks once.
    """
    import torch

    with _heard() as warned:
        there = torch.cuda.is_available()
    if there:
        return None
    from revbench.probes.nvml import gpus_of_driver

    names, problem = gpus_of_driver()
    cuda = _what_cuda_says(warned)
    if torch.version.hip is not None and _ROCM.exists():
        return f"this machine has an AMD GPU, but PyTorch can't use it: {cuda or 'is this user in the groups render and video?'}"
    if not (names or problem or cuda or _on_pci() or _WSL.exists()):
        return _another_kind()
    seen = " and ".join(dict.fromkeys(names)) or "an NVIDIA GPU"
    return f"this machine has {seen}, but PyTorch can't use it: {_why(names, problem, cuda)}"


def _why(names: list[str], problem: str | None, cuda: str | None) -> str:
    """Returns the reason and the mend.

    Args:
        names: of the GPUs that the driver sees.
        problem: why a driver does not answer.
        cuda: what CUDA itself says, if it is more than that there is nothing.
    """
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA; install a build with it (pytorch.org/get-started)"
    if problem is not None:
        return f"its driver does not answer ({problem}); reboot, or load the driver again"
    if cuda is not None:
        return f"{cuda} (PyTorch is built for CUDA {torch.version.cuda}; `nvidia-smi` says which the driver can)"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and names:
        return f"CUDA_VISIBLE_DEVICES={visible!r} leaves none of them visible; unset it"
    if names:
        return f"CUDA {torch.version.cuda} finds no device; are /dev/nvidia* there, and may this user read them?"
    return "its driver does not reach this process; start the container with `--gpus all`, or install NVIDIA's driver"


def _what_cuda_says(warned: list[str]) -> str | None:
    import torch

    with _heard() as more:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            more.append(first_line(error))
    said = next((line for line in (*warned, *more) if line and not any(words in line for words in _NOBODY)), None)
    return said and said[:300]


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Gives the first line of each warning inside, once it is left."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    found += [str(warning.message).strip().partition("\n")[0] for warning in caught]


def _on_pci() -> bool:
    """Tells whether the machine has a GPU of NVIDIA's in a slot, also where no driver says so."""
    for device in _PCI.glob("*"):
        try:
            vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAYS):
            return True
    return False


def _another_kind() -> str | None:
    """Names an accelerator that revbench does not measure on."""
    import torch

    if torch.backends.mps.is_available():
        return "this machine has an Apple GPU, which revbench does not measure on: only the CPU and CUDA"
    if getattr(torch, "xpu", None) is not None and torch.xpu.is_available():
        return "this machine has an Intel GPU, which revbench does not measure on: only the CPU and CUDA"
    if _ROCM.exists():
        return "this machine has an AMD GPU, but this PyTorch is not built for ROCm (pytorch.org/get-started)"
    return None


def warnings_of_gpus() -> str | None:
    """Returns what PyTorch says of GPUs that it can use but has no kernels for, in a line; None if it says nothing."""
    import torch

    with _heard() as said:
        torch.cuda.init()
    return "; ".join(said)[:1000] or None
