"""Whether a metric got worse: by a factor, by an amount, and by more than its noise.

Gated are the metrics that mean the same on every machine: the reconstructed activations' error, in epsilons, and the
smooth amplification; on like hardware also the smooth error, in epsilons.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from revbench.compare.findings import CANT_TELL, Finding
from revbench.compare.growth import SIGNIFICANCE, can_tell, grew, told_by_moments
from revbench.numerics.part_table import PartTable
from revbench.probes import Metric
from revbench.probes.declared import DRIFT
from revbench.results.runs import Run
from revbench.results.schema import Row, standing, with_own_draws

ACTIVATIONS = DRIFT["activation_error_epsilons"]
AMPLIFICATION = DRIFT["smooth_amplification"]
SMOOTH_ERROR = DRIFT["smooth_error_epsilons"]
_ACTIVATION_ERROR = DRIFT["activation_error"]  # the same as `ACTIVATIONS`, in no unit

# A metric is worse if all three hold: it grew by this factor, by this amount, and by more than its noise.
WORSE_FACTOR = 1.25
WORSE_BY: Mapping[Metric, float] = {ACTIVATIONS: 1.0, AMPLIFICATION: 0.25, SMOOTH_ERROR: 2.0}
BLIND_FACTOR = 4.0  # draws that would not find this in 90 of 100 cases tell nothing


class CaseRows:
    """The rows of one case of one run on one machine, all launches together.

    Attributes:
        rows: all of them.
        ok: those that have metrics, one a launch; of launches with the same draws, which are no further evidence, the first.
    """

    def __init__(self, run: Run, rows: Sequence[Row]) -> None:
        self._run = run
        self.rows = rows = standing(rows)
        launches = {row.repeat: row for row in rows if row.ok}  # of each the last, measured with other options
        self.ok = with_own_draws(launches.values())

    def samples(self, metric: Metric) -> list[float]:
        """Returns every draw of a metric."""
        return [float(value) for row in self.ok for value in row.samples.get(metric.name, ())]

    def blocks(self, *names: str) -> dict[str, list[tuple[float, ...]]]:
        """Returns columns of the series, by block, a tuple a launch; only where all of them are numbers."""
        found: dict[str, list[tuple[float, ...]]] = {}
        for row in self.ok:
            for block, *values in PartTable(self._run.series(row)).blocks(*names):
                if all(isinstance(value, (int, float)) for value in values):
                    found.setdefault(str(block), []).append(tuple(map(float, values)))
        return found


def gate(case_id: str, title: str, metric: Metric, before: CaseRows, now: CaseRows) -> Finding:
    """Judges one metric of one case that both runs have."""
    old, new = before.samples(metric), now.samples(metric)
    a, b = statistics.median(old), statistics.median(new)
    factor = b / a if a > 0 else (1.0 if b == a else None)
    block = _worst_block(before, now, _ACTIVATION_ERROR if metric is ACTIVATIONS else DRIFT["smooth_relative_error"])
    if not can_tell(len(old), len(new)):
        few = f"{len(old)} and {len(new)} draws can't tell a change from noise; a baseline of 30 needs 4, one of 15 needs 5"
        return Finding(case_id, title, metric.probe, metric.name, CANT_TELL, True, a, b, factor, None, block, few)
    significant, noise = grew(old, new)
    worse = significant and (factor is None or factor > WORSE_FACTOR) and b - a > WORSE_BY[metric]
    words = None
    if not worse and metric is ACTIVATIONS:
        words = _hidden_block(before, now, a)
        worse = words is not None
    outcome = "worse" if worse else "same" if noise <= BLIND_FACTOR else CANT_TELL
    if outcome == CANT_TELL:
        words = f"{len(old)} and {len(new)} draws scatter so much that less than {noise:.3g} × would not be found"
    known_noise = noise if math.isfinite(noise) else None
    return Finding(
        case_id, title, metric.probe, metric.name, outcome, True, a, b, factor, known_noise, block if worse else None, words
    )  # fmt: skip


def _worst_block(before: CaseRows, now: CaseRows, metric: Metric) -> str | None:
    """Returns the block in which a metric, which is a column of the series too, grew most."""
    old, new = (
        {k: statistics.median(v for (v,) in vs) for k, vs in of.blocks(metric.name).items()} for of in (before, now)
    )
    grown = {name: new[name] / value for name, value in old.items() if name in new and value > 0}
    if not grown:
        return None
    name = max(grown, key=lambda key: grown[key])
    return f"most in {name} ({grown[name]:.2f} ×)"


def _hidden_block(before: CaseRows, now: CaseRows, error_epsilons: float) -> str | None:
    """Returns a block that grew though the worst block, which the metric is of, did not.

    By Welch's t as in `revbench.compare.growth`, from the mean and the deviation of the logarithms that the series has of each
    block, at a significance that is shared by the blocks; in place of ranks all draws must lie above all of the baseline's.
    """
    names = ("activation_log_mean", "activation_log_deviation")
    old, new = _pooled(before, *names), _pooled(now, *names)
    errors = before.samples(_ACTIVATION_ERROR)
    epsilon = statistics.median(errors) / error_epsilons if errors and error_epsilons > 0 else 0.0
    grown: dict[str, float] = {}
    apart = _blocks_apart(before, now)
    for name in old.keys() & new.keys():
        (n, mean, variance), (m, mean_now, variance_now) = old[name], new[name]
        if not can_tell(n, m) or name not in apart:
            continue
        significant, _ = told_by_moments(mean_now - mean, n, variance, m, variance_now, SIGNIFICANCE / len(old))
        factor = math.exp(min(mean_now - mean, 700.0))
        amount = math.exp(min(mean_now, 700.0)) - math.exp(min(mean, 700.0))
        if significant and factor > WORSE_FACTOR and amount > WORSE_BY[ACTIVATIONS] * epsilon:
            grown[name] = factor
    if not grown:
        return None
    name = max(grown, key=lambda key: grown[key])
    return f"block {name} grew {grown[name]:.2f} ×, behind the worst one"


def _blocks_apart(before: CaseRows, now: CaseRows) -> set[str]:
    """Returns the blocks whose least error of now is above the largest of before."""
    highest = {name: max(v for (v,) in vs) for name, vs in before.blocks("activation_error_high").items()}
    lowest = {name: min(v for (v,) in vs) for name, vs in now.blocks("activation_error_low").items()}
    return {name for name, value in lowest.items() if name in highest and value > highest[name]}


def _pooled(rows: CaseRows, mean: str, deviation: str) -> dict[str, tuple[int, float, float]]:
    """Returns draws, mean and variance of the logarithms by block, launches joined."""
    draws = [len(row.samples.get(_ACTIVATION_ERROR.name, ())) for row in rows.ok]
    found: dict[str, tuple[int, float, float]] = {}
    for name, launches in rows.blocks(mean, deviation).items():
        if len(launches) != len(draws) or min(draws, default=0) < 2:
            continue  # a launch has nothing to say of this block
        total = sum(draws)
        middle = sum(n * m for n, (m, _) in zip(draws, launches, strict=True)) / total
        squares = sum((n - 1) * d * d + n * (m - middle) ** 2 for n, (m, d) in zip(draws, launches, strict=True))
        found[name] = total, middle, squares / (total - 1)
    return found
