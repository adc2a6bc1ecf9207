"""Whether a figure got worse: by a factor, by an amount, and by more than its noise.

Gated are the figures that mean the same on every machine: the reconstructed activations' error, in epsilons, and the
smooth amplification; on like hardware also the smooth error, in epsilons.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from revbench.compare.findings import Finding
from revbench.results.journal import Run
from revbench.results.schema import Row

# A figure is worse if all three hold: it grew by this factor, by this amount, and by more than its noise.
WORSE_FACTOR = 1.25
WORSE_BY: Mapping[str, float] = {
    "activation_error_epsilons": 1.0,
    "smooth_amplification": 0.25,
    "smooth_error_epsilons": 2.0,
}
SIGNIFICANCE = (
    1e-4  # one-sided, Welch's test on logarithms: some thirty figures a run may raise no false alarm in hundreds
)


class CaseRows:
    """The rows of one case of one run, all launches together."""

    def __init__(self, run: Run, rows: Sequence[Row]) -> None:
        self._run = run
        self.rows = rows
        self.ok = [row for row in rows if row.ok]

    def samples(self, name: str) -> list[float]:
        """Every draw of a quantity."""
        return [float(value) for row in self.ok for value in row.samples.get(name, ())]

    def blocks(self, name: str) -> dict[str, list[float]]:
        """A column of the series, by block, over launches."""
        found: dict[str, list[float]] = {}
        for row in self.ok:
            columns = self._run.series(row)
            if {"level", "name", name} <= columns.keys():
                for level, place, value in zip(columns["level"], columns["name"], columns[name], strict=True):
                    if level == "block" and isinstance(value, (int, float)):
                        found.setdefault(str(place), []).append(float(value))
        return found


def gate(case_id: str, title: str, figure: str, before: CaseRows, now: CaseRows) -> Finding:
    """One figure of one case that both runs have."""
    old, new = before.samples(figure), now.samples(figure)
    a, b = statistics.median(old), statistics.median(new)
    factor = b / a if a > 0 else (1.0 if b == a else math.inf)
    column = "activation_error" if figure.startswith("activation") else "smooth_relative_error"
    place = _worst_block(before.blocks(column), now.blocks(column))
    if min(len(old), len(new)) < 2:
        few = f"{len(old)} and {len(new)} draws can't tell a change from noise"
        return Finding(case_id, title, figure, "unclear", a, b, factor, None, place, few)
    significant, noise = grew(old, new)
    worse = significant and factor > WORSE_FACTOR and b - a > WORSE_BY[figure]
    words: str | None = None
    if not worse and figure.startswith("activation"):
        epsilon = statistics.median(before.samples("activation_error")) / a if a > 0 else 0.0
        words = _parted_block(before, now, WORSE_BY[figure] * epsilon)
        worse = words is not None
    return Finding(
        case_id, title, figure, "worse" if worse else "holds", a, b, factor, noise, place if worse else None, words
    )


def grew(old: Sequence[float], new: Sequence[float]) -> tuple[bool, float]:
    """Whether values grew by more than chance, and the smallest factor that these draws could have told.

    Welch's t-test on the logarithms (errors scatter by factors), one-sided, at `SIGNIFICANCE`.
    """
    if sorted(old) == sorted(new):
        return False, 1.0
    if min(*old, *new) <= 0:  # an exact result on one side has no logarithm
        return min(new) > max(old), math.inf
    a, b = np.log(old), np.log(new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # values that do not scatter at all
        test = stats.ttest_ind(b, a, equal_var=False, alternative="greater")
        error = math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
        noise = math.exp(min(float(stats.t.isf(SIGNIFICANCE, test.df)) * error, 700.0)) if error > 0 else 1.0
    return bool(test.pvalue < SIGNIFICANCE), noise


def _worst_block(before: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]) -> str | None:
    grown = {
        name: statistics.median(now[name]) / statistics.median(old)
        for name, old in before.items()
        if name in now and statistics.median(old) > 0
    }
    if not grown:
        return None
    name = max(grown, key=lambda key: grown[key])
    return f"most in {name} ({grown[name]:.2f} ×)"


def _parted_block(before: CaseRows, now: CaseRows, floor: float) -> str | None:
    """A block that is hidden behind a worse one: every draw of now above every draw of before, by the factor and the floor."""
    highest, lowest = before.blocks("activation_error_high"), now.blocks("activation_error_low")
    if min(len(before.samples("activation_error")), len(now.samples("activation_error"))) < 3:
        return None
    parted = {
        name: min(lowest[name]) / max(high)
        for name, high in highest.items()
        if name in lowest and min(lowest[name]) > WORSE_FACTOR * max(high) and min(lowest[name]) - max(high) > floor
    }
    if not parted:
        return None
    name = max(parted, key=lambda key: parted[key])
    return f"block {name} alone grew {parted[name]:.2f} × beyond its range"
