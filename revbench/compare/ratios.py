"""How many times as long one case takes as another: with an interval, and whether the samples bear a sentence at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from revbench.results.meanwhile import meanwhile
from revbench.results.schema import Row

CONFIDENCE = 0.95
WIDEST = 0.10  # an interval that reaches further than this from its middle, as a share, bears no sentence
LEAST_LAUNCHES = 3  # from which on they are resampled
LEAST_TURNS = 5  # for an interval of fewer launches
NOTABLE = 0.05  # of a drift, or between two modes: what is less hides in no sentence
_DRAWS = 1000  # of the bootstrap
_SHAPED = 8  # turns, from which on a drift or two modes can be told
_SURELY = 1e-3  # significance of a drift

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """A ratio of times.

    Attributes:
        value: of launches the geometric mean of their ratios; of a launch the median over its turns.
        low, high: ends of the interval of 95 %; None where there are too few turns for one.
        launches: how many both cases have.
        in_turn: whether in each of them both took turns in one process.
        unstable: why no sentence is to be made of it; None if it is stable.
    """

    value: float
    low: float | None
    high: float | None
    launches: int
    in_turn: bool
    unstable: str | None

    def scaled(self, factor: float) -> Ratio:
        """Returns the ratio times a factor that is known exactly."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return replace(self, value=self.value * factor, low=low, high=high)

    def inverse(self) -> Ratio:
        """Returns the ratio of the second to the first."""
        low, high = (None if end is None else 1 / end for end in (self.high, self.low))
        return replace(self, value=1 / self.value, low=low, high=high)

    def __str__(self) -> str:
        if self.low is None or self.high is None or math.isclose(self.low, self.high):
            return f"{self.value:.2f} ×"
        return f"{self.value:.2f} × ({self.low:.2f} to {self.high:.2f})"


def time_ratio(ours: Sequence[Row], theirs: Sequence[Row], metric: str = "step_seconds") -> Ratio | None:
    """Returns the ratio of the times of two cases, launch by launch.

    Launches are the unit: of at least `LEAST_LAUNCHES` the interval is Student's of the logarithms of their ratios. That is the
    bootstrap over launches in closed form, with the correction for small numbers that percentiles of a handful of launches lack
    (Hesterberg 2015, "What teachers should know about the bootstrap", section 3.2); what scatters within a launch is in the
    spread of launches already (Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time", section 6), and to resample
    turns as well would count it twice (Ren et al. 2010, "Nonparametric bootstrapping for hierarchical data"). Of fewer launches
    it is a bootstrap over their turns, those of both cases together where they took turns in one process, and says nothing of
    other launches.

    Args:
        ours, theirs: rows with metrics, one a launch.
        metric: whose samples are compared.

    Returns:
        The ratio; None if the cases have no launch in common.
    """
    pairs = _paired(ours, theirs, metric)
    if not pairs:
        return None
    launches = [_differences(a, b, metric) for a, b in pairs]
    centre = float(np.mean([_middle(one) for one in launches]))
    reach = _reach(launches)
    in_turn = all(_in_turn(a, b) for a, b in pairs)
    reasons = [] if reach is not None else ["too few turns for an interval"]
    if reach is not None and math.expm1(reach) > WIDEST:
        reasons.append(f"the interval reaches {100 * math.expm1(reach):.3g} % above the ratio")
    reasons += _shapes([one for one in launches if isinstance(one, np.ndarray)])
    why = f"{'; '.join(reasons)}{_meanwhile([row for pair in pairs for row in pair])}" if reasons else None
    low, high = (None, None) if reach is None else (math.exp(centre - reach), math.exp(centre + reach))
    return Ratio(math.exp(centre), low, high, len(pairs), in_turn, why)


def launch_ratios(ours: Sequence[Row], theirs: Sequence[Row], metric: str = "step_seconds") -> list[float]:
    """Returns the ratio of each launch that two cases have in common."""
    pairs = _paired([row for row in ours if row.ok], [row for row in theirs if row.ok], metric)
    return [math.exp(_middle(_differences(a, b, metric))) for a, b in pairs]


def ratios_in_turn(ours: Sequence[Row], theirs: Sequence[Row], metric: str = "step_seconds") -> list[float]:
    """Returns the ratio of each launch in which two versions of the code took turns; none if that is not so of all launches."""
    bases = {row.metrics.get("session"): row for row in theirs if row.ok and _is_timed(row, metric)}
    pairs = [(row, bases.get(row.metrics.get("session"))) for row in ours if row.ok and _is_timed(row, metric)]
    if not pairs or len(pairs) != len(bases):
        return []
    found = []
    for a, b in pairs:
        if b is None or not _in_turn(a, b):
            return []
        found.append(math.exp(_middle(_differences(a, b, metric))))
    return found


def turn_seconds(row: Row, metric: str = "step_seconds") -> Array:
    """Returns the median step of each turn of a launch."""
    samples = np.asarray(row.samples.get(metric, ()), dtype=np.float64)
    steps = max(int(row.number("steps_per_turn") or 1), 1)
    if samples.size % steps:
        steps = 1
    found: Array = np.median(samples.reshape(-1, steps), axis=1) if samples.size else samples
    return found


def _paired(ours: Sequence[Row], theirs: Sequence[Row], metric: str) -> list[tuple[Row, Row]]:
    """Returns the launches that both have; where some took turns, only those."""
    bases = {(row.environment_id, row.repeat): row for row in theirs if _is_timed(row, metric)}
    pairs = [
        (row, base)
        for row in ours
        if _is_timed(row, metric) and (base := bases.get((row.environment_id, row.repeat))) is not None
    ]
    return [pair for pair in pairs if _in_turn(*pair)] or pairs


def _is_timed(row: Row, metric: str) -> bool:
    values = row.samples.get(metric, ())
    return bool(values) and min(values) > 0


def _in_turn(a: Row, b: Row) -> bool:
    session = a.metrics.get("session")
    return session is not None and session == b.metrics.get("session")


Launch = Array | tuple[Array, Array]  # differences turn by turn, or the logarithms of two cases that did not take turns


def _differences(a: Row, b: Row, metric: str) -> Launch:
    ours, theirs = (np.log(turn_seconds(row, metric)) for row in (a, b))
    if a is b or _in_turn(a, b):
        turns = min(len(ours), len(theirs))  # one may have had a turn more than the other
        return ours[:turns] - theirs[:turns]
    return ours, theirs


def _middle(launch: Launch) -> float:
    if isinstance(launch, tuple):
        return float(np.median(launch[0]) - np.median(launch[1]))
    return float(np.median(launch))


def _reach(launches: Sequence[Launch]) -> float | None:
    """Returns how far the interval reaches from its middle, in logarithms; None where nothing can be told."""
    if len(launches) >= LEAST_LAUNCHES:
        freedom = len(launches) - 1
        error = float(np.std([_middle(one) for one in launches], ddof=1)) / math.sqrt(len(launches))
    else:
        freedom = sum(min(map(len, one)) if isinstance(one, tuple) else len(one) for one in launches) - len(launches)
        if freedom < LEAST_TURNS - 1:
            return None
        generator = np.random.default_rng(0)
        means = np.mean([_resampled(one, generator) for one in launches], axis=0)
        error = float(means.std()) * math.sqrt((freedom + 1) / freedom)
    return error * float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2))


def _resampled(launch: Launch, generator: np.random.Generator) -> Array:
    """Returns medians of turns that are drawn with replacement."""
    if isinstance(launch, tuple):
        ours, theirs = (_resampled(one, generator) for one in launch)
        return ours - theirs
    drawn: Array = np.median(launch[generator.integers(len(launch), size=(_DRAWS, len(launch)))], axis=1)
    return drawn


def _shapes(launches: Sequence[Array]) -> list[str]:
    """Says of the ratios of a launch, turn by turn, that they drift or have two modes."""
    found = []
    drifts = [drift for one in launches if abs(drift := drift_of(one)) > math.log1p(NOTABLE)]
    if drifts:
        found.append(f"it drifts by {abs(math.expm1(max(drifts, key=abs))):.0%} within a launch")
    gaps = [gap for one in launches if (gap := gap_of(one)) > math.log1p(NOTABLE)]
    if gaps:
        found.append(f"it has two modes, {math.expm1(max(gaps)):.0%} apart")
    return found


def drift_of(values: Array) -> float:
    """Returns how much the last third of some values lies above the first; 0 if no trend is sure (Kendall's tau)."""
    if len(values) < _SHAPED:
        return 0.0
    from scipy import stats  # takes a second to import

    if stats.kendalltau(np.arange(len(values)), values).pvalue > _SURELY:
        return 0.0
    third = len(values) // 3
    return float(np.median(values[-third:]) - np.median(values[:third]))


def gap_of(values: Array) -> float:
    """Returns the distance of two modes; 0 if there are none: of the best division into two clusters, each of at least a fifth
    of the values, the middles must be further apart than eight times the mean deviation within (Ashman, Bird and Zepf 1994 ask
    for two of a normal mixture; a division that is chosen finds four in pure noise)."""
    if len(values) < _SHAPED:
        return 0.0
    ordered = np.sort(values)
    least = max(math.ceil(len(ordered) / 5), 2)
    best, gap = 0.0, 0.0
    for cut in range(least, len(ordered) - least + 1):
        low, high = ordered[:cut], ordered[cut:]
        within = math.sqrt((low.var() * len(low) + high.var() * len(high)) / len(ordered))
        apart = float(high.mean() - low.mean())
        if apart > best * within:
            best, gap = (apart / within if within > 0 else math.inf), apart
            if math.isinf(best):
                break
    return gap if best > 8 else 0.0


def _meanwhile(rows: Sequence[Row]) -> str:
    """Names what else the machine did, where it is worth a word."""
    said = meanwhile(rows)
    return f" (in one of the launches {', '.join(said)})" if said else ""
