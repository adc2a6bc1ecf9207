"""revbench: what reconstructing activations saves in memory, costs in time and does to the gradient.

Names are imported on first use (PEP 562), so that loading the pytest plugin loads neither torch nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Case": "revbench.case",
    "DriftMonitor": "revbench.numerics.monitor",
    "UserError": "revbench.errors",
    "build_model": "revbench.models",
    "doctor": "revbench.launch.doctor:examine",
    "drift": "revbench.numerics.drift",
    "is_recomputing": "revbench.backprop",
    "load_runs": "revbench.results.frames",
    "measure": "revbench.launch.interactive",
    "predict": "revbench.prediction",
    "reversible": "revbench.backprop",
    "sequential": "revbench.backprop",
}

__all__ = [
    "Case",
    "DriftMonitor",
    "UserError",
    "__version__",
    "build_model",
    "doctor",
    "drift",
    "is_recomputing",
    "load_runs",
    "measure",
    "predict",
    "reversible",
    "sequential",
]

if TYPE_CHECKING:
    from revbench.backprop import is_recomputing, reversible, sequential
    from revbench.case import Case
    from revbench.errors import UserError
    from revbench.launch.doctor import examine as doctor
    from revbench.launch.interactive import measure
    from revbench.models import build_model
    from revbench.numerics.drift import drift
    from revbench.numerics.monitor import DriftMonitor
    from revbench.prediction import predict
    from revbench.results.frames import load_runs


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'revbench' has no attribute {name!r}")
    home, _, called = _HOMES[name].partition(":")
    return getattr(importlib.import_module(home), called or name)


def __dir__() -> list[str]:
    return __all__
