"""Drift along a training run: a hook for anybody's loop, that never changes the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from revbench.errors import UserError, first_line
from revbench.numerics.gradients import GradientDrift, compare_gradients
from revbench.numerics.networks import SetStrategy, set_strategies
from revbench.observing.nested import map_tensors


@dataclass(frozen=True)
class Moment:
    """One measurement.

    Attributes:
        step: number of the step before which it was made.
        drift: what was found; None if loss or gradient was not finite or could not be measured, for `problem`.
        problem: where that began, or what went wrong.
        seconds: what the measurement cost.
    """

    step: int
    drift: GradientDrift | None
    problem: str | None
    seconds: float


class DriftMonitor:
    """Measures the drift of the gradient every so many steps, on copies: weights, buffers, gradients and the random
    generators of the training are not touched. Figure 4 (left) of Gomez et al. 2017.

    A measurement takes at most four steps (two if no unit flipped) and one in float64; `every` and `items` set what that costs.

    Args:
        model: the network that is trained.
        loss: from outputs and targets to a scalar.
        every: steps from one measurement to the next, beginning with step 0.
        items: of the batch that are used; all if None. Batch norm sees the smaller batch.
        autocast: as the training's: ``none``, ``bfloat16`` or ``float16``.
        set_strategy: for reversible networks that are not ours; see `compare_gradients`.
        strategy: which to measure; the model's own if None.

    Attributes:
        moments: what was found, in order.

    The loss must not use the model itself, and hooks that write into objects of yours fire in the copies, too.

    Raises:
        UserError: `every` or `items` is not positive; at the first measurement, a network that can't be measured.

    Example:
        >>> watch = revbench.DriftMonitor(model, torch.nn.functional.cross_entropy, every=100, items=16)
        >>> for step, (inputs, targets) in enumerate(batches):
        ...     watch(step, inputs, targets)
        ...     train_one_step(inputs, targets)
        >>> [moment.drift.whole.angle_degrees for moment in watch.moments]
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Any, Any], Tensor],
        *,
        every: int,
        items: int | None = None,
        autocast: str = "none",
        strategy: str | None = None,
        set_strategy: SetStrategy = set_strategies,
    ) -> None:
        for name, value in (("every", every), ("items", items)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"{name}={value!r} must be an integer of at least 1")
        self.model = model
        self.loss = loss
        self.every = every
        self.items = items
        self.autocast = autocast
        self.strategy = strategy
        self.set_strategy = set_strategy
        self.moments: list[Moment] = []

    def __call__(self, step: int, inputs: Any, targets: Any) -> Moment | None:
        """Measure if it is time to; call it before the training step, with its batch."""
        if step % self.every:
            return None
        began = time.perf_counter()
        inputs, targets = map_tensors(lambda x: x[: self.items] if x.dim() else x, (inputs, targets))
        drift, problem = None, None
        try:
            drift = compare_gradients(
                self.model, self.loss, inputs, targets, autocast=self.autocast, seed=step, strategy=self.strategy,
                set_strategy=self.set_strategy, closer=False,
            )  # fmt: skip
        except (FloatingPointError, UserError, NotImplementedError, RuntimeError) as error:
            if isinstance(error, UserError) and not self.moments:
                raise  # a mistake in the set-up is told at once; later nothing here may end a training
            problem = first_line(error)
        moment = Moment(step, drift, problem, time.perf_counter() - began)
        self.moments.append(moment)
        return moment
