"""Parts of a case that belong together: its arithmetic, how it is back-propagated, how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from revbench.choices import ALL_STRATEGIES, NONREVERSIBLE, Nonreversible, Strategy
from revbench.errors import UserError, unknown
from revbench.paper.recipes import Recipe

# The distance from 1 to the next number, by dtype: twice the unit roundoff u of Higham 2002, "Accuracy and Stability of
# Numerical Algorithms", section 2.1.
EPSILONS: Mapping[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
TF32_EPSILON = 2.0**-10  # 10 bits of mantissa are stored (NVIDIA, "A100 Tensor Core GPU Architecture", 2020)

_ADAMW_LEARNING_RATE = 1e-3  # PyTorch's


@dataclass(frozen=True)
class Arithmetic:
    """Says in which numbers a step is computed.

    Attributes:
        dtype: of weights and activations: ``float32``, ``float64`` or ``bfloat16``.
        autocast: ``none``, or the dtype that products and convolutions are computed in.
        tf32: whether products or convolutions of float32 are computed in TF32.
    """

    dtype: str
    autocast: str = "none"
    tf32: bool = False

    @property
    def name(self) -> str:
        """Its name in words: ``float32``, ``autocast bfloat16``, ``TF32``."""
        if self.autocast != "none":
            return f"autocast {self.autocast}"
        return "TF32" if self.tf32 and self.dtype == "float32" else self.dtype

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number in the coarsest of its numbers, to which products and convolutions round."""
        if self.autocast != "none":
            return EPSILONS[self.autocast]
        return TF32_EPSILON if self.name == "TF32" else EPSILONS[self.dtype]

    @property
    def stream_epsilon(self) -> float:
        """The same of the activations between blocks: float32's at most under autocast."""
        epsilon = EPSILONS[self.dtype]
        return epsilon if self.autocast == "none" else min(epsilon, EPSILONS["float32"])

    @property
    def is_reference(self) -> bool:
        """Whether `stored` in it is what all others are compared with: float64."""
        return self.name == "float64"


@dataclass(frozen=True)
class Backpropagation:
    """Says how backward has the activations that it needs; what can't be together can't be made.

    Attributes:
        strategy: ``stored``, ``reconstructed``, ``checkpointed``, ``recursive``, or one of PyTorch's own.
        nonreversible: whether units that can't be inverted keep their activations or are ``recomputed``.
        kept_half_blocks: under ``reconstructed``, half blocks at the end of each reversible chain that keep their activations.
        certify: under ``reconstructed``, compare checksums of the activations.

    Raises:
        UserError: an unknown name, or choices that don't go together.
    """

    strategy: Strategy
    nonreversible: Nonreversible = "kept"
    kept_half_blocks: int = 0
    certify: bool = False

    def __post_init__(self) -> None:
        if self.strategy not in ALL_STRATEGIES:
            raise unknown("strategy", self.strategy, ALL_STRATEGIES)
        if self.nonreversible not in NONREVERSIBLE:
            raise unknown("nonreversible", self.nonreversible, NONREVERSIBLE)
        if self.strategy == "stored" and self.nonreversible == "recomputed":
            raise UserError("strategy=stored keeps every activation; nonreversible must be kept")
        if self.strategy != "reconstructed" and (self.kept_half_blocks or self.certify):
            raise UserError("kept_half_blocks and certify are of strategy=reconstructed; omit them")


@dataclass(frozen=True)
class Schedule:
    """Says how a case is trained, step by step.

    Attributes:
        recipe: how it is trained.
        steps: of the training; 0 of a case whose steps are only measured.
        optimizer: ``sgd`` or ``adamw``.
        learning_rate: at first, as the case gives it; 0 leaves it to the recipe.
    """

    recipe: Recipe
    steps: int
    optimizer: str
    learning_rate: float

    @property
    def first_learning_rate(self) -> float:
        """The case's own; else of a training the recipe's, for AdamW PyTorch's; and of steps that are only measured 0: weights
        stay where they are."""
        if self.learning_rate or not self.steps:
            return self.learning_rate
        return self.recipe.learning_rate if self.optimizer == self.recipe.optimizer else _ADAMW_LEARNING_RATE

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        return self.recipe.learning_rate_at(step, self.steps, self.first_learning_rate)
