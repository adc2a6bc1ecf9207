"""How the paper trains on CIFAR (Gomez et al. 2017, section 4): every number of it, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
        padding: pixels of zeros on every side before a random crop of the image's own size.
    """

    batch_size: int
    steps: int
    learning_rate: float
    milestones: Sequence[float]
    momentum: float
    weight_decay: float
    padding: int

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Of step `step` (from 0) of `steps`."""
        passed = sum(step >= share * steps for share in self.milestones)
        return float(self.learning_rate / 10**passed)


# 80,000 steps, the rate divided by 10 at 40,000 and 60,000; pad-4 crop, and flip where the data allow it.
PAPER = Recipe(
    batch_size=100, steps=80_000, learning_rate=0.1, milestones=(0.5, 0.75), momentum=0.9, weight_decay=2e-4, padding=4
)  # fmt: skip
