"""Settings of PyTorch's CUDA allocator under which it gives out other blocks than a prediction counts."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_OTHER_BLOCKS = ("expandable_segments", "roundup_power2_divisions", "max_split_size_mb", "backend", "use_uvm")
_OFF = ("False", "false", "0", "native")


def caveat(settings: Mapping[str, str | None]) -> str | None:
    """Returns a sentence that says which setting a prediction does not know; None if there is none.

    Args:
        settings: ``allocator_configuration``, the value of PYTORCH_ALLOC_CONF; ``allocator``, the backend.
    """
    configuration = settings.get("allocator_configuration") or ""
    options = dict(re.findall(r"(\w+)\s*:\s*(\[[^\]]*\]|[^,\s]*)", configuration))
    other = [f"{name}:{options[name]}" for name in _OTHER_BLOCKS if name in options and options[name] not in _OFF]
    if settings.get("allocator") not in (None, "native") and "backend" not in options:
        other.append(f"backend:{settings['allocator']}")
    if not other:
        return None
    return f"The CUDA allocator is set to {', '.join(other)}, which predictions do not know: it may take more than they say."


def caveat_here() -> str | None:
    """Returns the same of this process's environment variables."""
    configuration = os.environ.get("PYTORCH_ALLOC_CONF") or os.environ.get("PYTORCH_CUDA_ALLOC_CONF")
    return caveat({"allocator_configuration": configuration})
