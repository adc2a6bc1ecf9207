"""What a training step will need, before it is run and without the device that it will run on.

Names are imported on first use, so that what is declared here can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from revbench.prediction.depth import deepest
    from revbench.prediction.fit import Fit, largest_batch
    from revbench.prediction.predictor import Prediction, predict

__all__ = ["Fit", "Prediction", "deepest", "largest_batch", "predict"]

_HOMES = {"deepest": "depth", "Fit": "fit", "largest_batch": "fit", "Prediction": "predictor", "predict": "predictor"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'revbench.prediction' has no attribute {name!r}")
    return getattr(importlib.import_module(f"revbench.prediction.{_HOMES[name]}"), name)
