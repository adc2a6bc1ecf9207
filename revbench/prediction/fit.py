"""The largest batch, or the deepest network, that fits into so much memory, by prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from revbench.case import Case
from revbench.devices.memory import within_limit_bytes
from revbench.errors import UserError
from revbench.prediction.predictor import Predictor
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload

_SURELY = 64  # at which memory grows, if it does: the smallest networks have peaks of their own kind
MARGIN = 0.1  # of the limit, left for what no count of tensors tells: context, workspaces, fragmentation


@dataclass(frozen=True)
class Fit:
    """The largest value of a setting with which a step fits.

    Attributes:
        case: with that setting; None if the smallest does not fit.
        value: of the setting.
        peak_bytes: predicted for `case`, or for the smallest setting if `case` is None.
        checked: whether the step was predicted at this very value; else the value is extrapolated from smaller ones.
        limit_bytes: what was given.
        usable_bytes: what of it was filled.
    """

    case: Case | None
    value: int
    peak_bytes: int
    checked: bool
    limit_bytes: int
    usable_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return {**asdict(self), "case": None if self.case is None else self.case.to_json()}


def largest_batch(case: Case, limit_bytes: int, *, margin: float = MARGIN, predictor: Predictor | None = None) -> Fit:
    """Returns the largest batch whose training step fits.

    What is alive at one moment of the step is affine in the batch, so the peak, the most of all moments, is convex:
    two predictions give a line, the batch that the line names is predicted itself, and if it fits, no larger one does.

    Args:
        case: its own batch size does not count.
        limit_bytes: of memory.
        margin: share of the limit that stays free.
        predictor: one that may know the network already.

    Raises:
        UserError: a limit of no bytes, and what `predict` raises.
    """
    return largest(case, lambda size: case.replace(batch_size=size), limit_bytes, margin, start=16, predictor=predictor)


def measure_fit(workloads: Sequence[Workload], *, progress: Progress, margin: float | None = None) -> list[Measurement]:
    """Predict the largest batch of each case within its ``memory_limit_bytes``.

    Args:
        workloads: of networks with a limit.
        progress: told after each.
        margin: share of the limit that stays free; on the CPU none, since live tensors are predicted exactly, on a GPU
            `MARGIN`.

    Returns:
        Metrics ``largest_batch_size`` (0 if not even one item fits), ``predicted_peak_bytes`` (of that batch, or of one
        item), ``margin``, ``usable_limit_bytes``.

    Raises:
        NotImplementedError: the limit is more than the GPU has.
    """
    found = []
    predictor = Predictor()
    for workload in workloads:
        case = workload.case
        free = margin if margin is not None else (MARGIN if case.on_gpu else 0.0)
        limit = within_limit_bytes(case.memory_limit_bytes) if case.on_gpu else case.memory_limit_bytes
        fit = largest_batch(case, limit, margin=free, predictor=predictor)
        metrics: dict[str, Value] = {
            "largest_batch_size": fit.value, "predicted_peak_bytes": fit.peak_bytes, "margin": free,
            "usable_limit_bytes": limit,
        }  # fmt: skip
        found.append(Measurement(metrics))
        progress({"done": len(found), "of": len(workloads)})
    return found


def largest(
    case: Case, at: Callable[[int], Case], limit_bytes: int, margin: float, *, start: int, longest: int | None = None,
    predictor: Predictor | None = None,
) -> Fit:  # fmt: skip
    """Returns the largest value whose case fits, along lines through the two nearest predictions.

    Args:
        case: for messages.
        at: the case of a value.
        limit_bytes, margin: as above.
        start: the value predicted first, beside 1.
        longest: no value above this is predicted; a larger answer is extrapolated.
        predictor: as above.
    """
    if limit_bytes < 1:
        raise UserError(f"a limit of {limit_bytes} bytes fits nothing; give one as 24GiB")
    usable = int(limit_bytes * (1 - margin))
    predict = (predictor or Predictor()).predict
    try:
        smallest, peak = 1, predict(at(1)).step.peak_bytes
    except UserError:  # batch norm over one pixel of one item, say
        smallest, peak = 2, predict(at(2)).step.peak_bytes
    fits = {smallest: peak}
    if peak > usable:
        return Fit(None, 0, peak, True, limit_bytes, usable)
    too_large: dict[int, int] = {}
    guess = start
    while True:
        peak = predict(at(guess)).step.peak_bytes
        (fits if peak <= usable else too_large)[guess] = peak
        low = max(fits)
        if too_large:
            high = min(too_large)
            if high == low + 1:
                return Fit(at(low), low, fits[low], True, limit_bytes, usable)
            slope = (too_large[high] - fits[low]) / (high - low)
            guess = min(low + max(int((usable - fits[low]) / slope), 1), high - 1)
            continue
        before = sorted(fits)[-2]
        slope = (fits[low] - fits[before]) / (low - before)
        if slope <= 0:
            if low >= (longest or _SURELY):
                raise UserError(f"{case.id}: memory does not grow with this setting, so nothing limits it")
            guess = min(2 * low, longest or 2 * low)
            continue
        guess = low + int((usable - fits[low]) / slope)
        if guess == low:  # a peak is convex, so at the next value it is on this line or above
            return Fit(at(low), low, fits[low], True, limit_bytes, usable)
        if longest is not None and guess > longest:
            if low >= longest:
                return Fit(at(guess), guess, int(fits[low] + slope * (guess - low)), False, limit_bytes, usable)
            guess = longest
