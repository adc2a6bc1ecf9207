"""What a training step will need, before it is run and without the device that it will run on."""

from revbench.prediction.depth import deepest
from revbench.prediction.fit import Fit, largest_batch
from revbench.prediction.predictor import Prediction, predict

__all__ = ["Fit", "Prediction", "deepest", "largest_batch", "predict"]
