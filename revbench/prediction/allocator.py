"""Settings of PyTorch's CUDA allocator under which it gives out other blocks than a prediction counts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

CONFIGURATIONS = (  # variables that PyTorch's versions and builds read; which of them wins differs
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
)  # fmt: skip
_OTHER_BLOCKS = ("expandable_segments", "roundup_power2_divisions", "max_split_size_mb", "backend", "use_uvm")
_OFF = ("False", "false", "0", "native")


def caveat(settings: Mapping[str, str]) -> str | None:
    """Returns a sentence that says which setting a prediction does not know; None if there is none.

    Args:
        settings: variables of the environment by name, and ``allocator``, the backend that is in force.
    """
    other: list[str] = []
    for variable in CONFIGURATIONS:
        value = settings.get(variable, "")
        if variable.endswith("_CACHING"):
            other += [f"{variable}={value}"] if value not in ("", *_OFF) else []
            continue
        options = dict(re.findall(r"(\w+)\s*:\s*(\[[^\]]*\]|[^,\s]*)", value))
        other += [f"{name}:{options[name]}" for name in _OTHER_BLOCKS if name in options and options[name] not in _OFF]
    backend = settings.get("allocator", "native")
    if backend != "native" and f"backend:{backend}" not in other:
        other.append(f"backend:{backend}")
    if not other:
        return None
    said = ", ".join(dict.fromkeys(other))
    return f"The CUDA allocator is set to {said}, which predictions do not know: it may take more than they say."


def caveat_here() -> str | None:
    """Returns the same of this process's environment variables."""
    return caveat({name: os.environ[name] for name in CONFIGURATIONS if name in os.environ})
