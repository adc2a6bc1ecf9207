"""How the paper trains (Gomez et al. 2017, section 4): every number of it, in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """A training that is scaled to any number of steps.

    Attributes:
        batch_size: images a step.
        steps: of the paper.
        learning_rate: at first.
        milestones: shares of the steps after which the learning rate is divided by 10.
        momentum: of SGD.
        weight_decay: on weights only: tensors of two dimensions or more.
        crop: ``padded``: of the image's own size, out of the image with `padding` pixels of zeros on every side;
            ``resized``: torchvision's standard crop for ImageNet (`RandomResizedCrop` of 8 to 100 % of the area; to
            validate, the middle of an image whose short side is 8/7 of it). Both are mirrored half of the time where a
            mirrored image has the same label.
        padding: pixels of zeros on every side before a padded crop.
    """

    batch_size: int
    steps: int
    learning_rate: float
    milestones: Sequence[float]
    momentum: float
    weight_decay: float
    crop: Literal["padded", "resized"]
    padding: int = 0

    def learning_rate_at(self, step: int, steps: int, first: float | None = None) -> float:
        """Returns the rate of step `step` (from 0) of `steps`; of a schedule that begins with `first`, the recipe's own if
        that is None."""
        passed = sum(step >= share * steps for share in self.milestones)
        return float((self.learning_rate if first is None else first) / 10**passed)


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
}  # fmt: skip
