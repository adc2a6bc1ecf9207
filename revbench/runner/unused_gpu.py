"""Why the CPU is measured on a machine that has a GPU: the commonest failure in the field, said with its mend."""

from __future__ import annotations

import os
import platform
import warnings
from pathlib import Path

from revbench.errors import first_line

_NVIDIA, _DISPLAYS = "0x10de", ("0x0300", "0x0302")  # of PCI: the vendor; displays, and processors without one
_PCI = Path("/sys/bus/pci/devices")


def why_no_gpu() -> str | None:
    """Returns why PyTorch can use no GPU although there seems to be one, in a line with the mend; None if there seems to be none.

    Call it in a worker: it begins with CUDA.
    """
    import torch

    if torch.cuda.is_available():
        return None
    from revbench.probes.nvml import names_of_gpus

    names = names_of_gpus()
    if not names and not _nvidia_on_pci():
        return _another_kind()
    there = " and ".join(dict.fromkeys(names)) or "an NVIDIA GPU"
    return f"this machine has {there}, but PyTorch can't use it: {_why(seen_by_driver=bool(names))}"


def _why(*, seen_by_driver: bool) -> str:
    import torch

    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA; install a build with it (pytorch.org/get-started)"
    if not seen_by_driver:
        return (
            "its driver does not reach this process; start the container with `--gpus all`, or install NVIDIA's driver"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it; unset that"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            reason = first_line(error)
        else:
            reason = "CUDA begins, and finds no device"
    said = next(
        (str(warning.message).strip().splitlines()[0] for warning in caught if str(warning.message).strip()), reason
    )
    return f"{said[:300]} (PyTorch is built for CUDA {torch.version.cuda}; `nvidia-smi` says which the driver can)"


def _nvidia_on_pci() -> bool:
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
    if platform.system() == "Linux" and Path("/dev/kfd").exists() and torch.version.hip is None:
        return "this machine has an AMD GPU, but this PyTorch is not built for ROCm (pytorch.org/get-started)"
    return None
