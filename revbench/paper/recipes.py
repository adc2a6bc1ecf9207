"""How networks are trained: the paper's way (Gomez et al. 2017, section 4), every number of it, and a usual one for language
models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """A training that is scaled to any number of steps.

    Attributes:
        batch_size: items a step.
        steps: of a whole training.
        learning_rate: at first; after a warm-up, if there is one.
        milestones: shares of the steps after which the learning rate is divided by 10.
        optimizer: ``sgd`` or ``adamw``.
        momentum: of SGD.
        weight_decay: on weights only: tensors of two dimensions or more.
        crop: ``padded``: of the image's own size, out of the image with `padding` pixels of zeros on every side;
            ``resized``: torchvision's standard crop for ImageNet (`RandomResizedCrop` of 8 to 100 % of the area; to
            validate, the middle of an image whose short side is 8/7 of it). Both are mirrored half of the time where a
            mirrored image has the same label. ``window``: of a text, anywhere in it.
        padding: pixels of zeros on every side before a padded crop.
        warm_up: share of the steps in which the learning rate grows to its first value; after them it falls to 0 along half a
            cosine (Loshchilov & Hutter 2017, equation 5), and there are no milestones. No warm-up and no cosine if 0.
    """

    batch_size: int
    steps: int
    learning_rate: float
    milestones: Sequence[float]
    momentum: float
    weight_decay: float
    crop: Literal["padded", "resized", "window"]
    padding: int = 0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    warm_up: float = 0.0

    def learning_rate_at(self, step: int, steps: int, first: float | None = None) -> float:
        """Returns the rate of step `step` (from 0) of `steps`; of a schedule that begins with `first`, the recipe's own if
        that is None."""
        rate = self.learning_rate if first is None else first
        if self.warm_up:
            rising = self.warm_up * steps
            if step < rising:
                return rate * (step + 1) / math.ceil(rising)
            return rate * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
        passed = sum(step >= share * steps for share in self.milestones)
        return float(rate / 10**passed)


RECIPES: Mapping[str, Recipe] = {
    # 80,000 steps, the rate divided by 10 at 40,000 and 60,000.
    "cifar": Recipe(
        batch_size=100, steps=80_000, learning_rate=0.1, milestones=(0.5, 0.75), momentum=0.9, weight_decay=2e-4,
        crop="padded", padding=4,
    ),
    # 600,000 steps, the rate divided by 10 at 160,000, 320,000 and 480,000. The paper does not say how it crops.
    "imagenet": Recipe(
        batch_size=256, steps=600_000, learning_rate=0.1, milestones=(16 / 60, 32 / 60, 48 / 60), momentum=0.9,
        weight_decay=1e-4, crop="resized",
    ),
    # Of no paper: AdamW, a warm-up and a cosine, as small language models are usually trained.
    "text": Recipe(
        batch_size=16, steps=5_000, learning_rate=1e-3, milestones=(), momentum=0.9, weight_decay=0.1, crop="window",
        optimizer="adamw", warm_up=0.05,
    ),
}  # fmt: skip
