"""What the comparison of times is worth: false alarms among unchanged cases, and planted slow-downs found.

Synthetic comparisons resample noise that was recorded on a real machine (`NOISE`), launch by launch, by

    revbench run revnet-38 --strategy stored --strategy reconstructed --strategy checkpointed --probe time --repeats 30 \\
      --interleave HEAD
    python -m tests.compare.proof record RUN-baseline RUN

which is how anybody records their own. `python -m tests.compare.proof` prints what this one comes to.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from revbench.compare.ratios import launch_ratios, ratios_in_turn
from revbench.compare.runs import TIME_CHANGE
from revbench.compare.times import change_of, verdicts
from revbench.probes.declared import TIME
from revbench.results.runs import read_run

NOISE = Path(__file__).parent / "recorded_noise.json"
FAMILY = 20  # comparisons of one call
LAUNCHES = 10

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Found:
    """What some comparisons came to.

    Attributes:
        comparisons: how many there were.
        worse, better: verdicts of that kind.
    """

    comparisons: int
    worse: int
    better: int

    @property
    def alarms(self) -> int:
        """Verdicts that something changed."""
        return self.worse + self.better


def record(baseline: Path, run: Path) -> dict[str, list[list[float]]]:
    """Returns the logarithms, case by case: of the ratios of launches in turn, and of the ratios to stored, centred."""
    before, now = read_run(baseline), read_run(run)
    in_turn, to_stored = [], []
    for case in dict.fromkeys(row.case for row in now.rows):
        rows = [[row for row in one.rows if row.case == case and row.probe == TIME.name] for one in (before, now)]
        in_turn.append([round(math.log(ratio), 6) for ratio in ratios_in_turn(rows[1], rows[0])])
        if case != case.stored():
            for side, of_side in zip((before, now), rows, strict=True):
                bases = [row for row in side.rows if row.case == case.stored() and row.probe == TIME.name]
                to_stored.append(_centred(launch_ratios(of_side, bases)))
    return {"in_turn": in_turn, "to_stored": to_stored}


def _centred(ratios: Sequence[float]) -> list[float]:
    logs = np.log(ratios)
    return [round(float(value), 6) for value in logs - logs.mean()]


def compared_in_turn(generator: np.random.Generator, factor: float, families: int, changed: int = FAMILY) -> Found:
    """Simulates calls that compare cases of two versions that took turns.

    Which of two like versions is called the newer one is chance, so a recorded ratio is drawn as often as its inverse.

    Args:
        generator: of what is drawn.
        factor: by which the changed cases take longer.
        families: calls.
        changed: of the cases of a call.
    """
    noise = json.loads(NOISE.read_text())["in_turn"]
    counts = {"worse": 0, "better": 0}
    for _ in range(families):
        changes = []
        for number in range(FAMILY):
            drawn = _drawn(generator, noise[generator.integers(len(noise))], LAUNCHES)
            drawn *= generator.choice([-1.0, 1.0], LAUNCHES)
            ratios = np.exp(drawn + math.log(factor if number < changed else 1.0))
            changes.append(change_of([1.0] * LAUNCHES, list(ratios), in_turn=True, ratios=list(ratios)))
        for verdict in verdicts(changes, [TIME_CHANGE] * FAMILY)[:changed]:
            if verdict in counts:
                counts[verdict] += 1
    return Found(families * changed, counts["worse"], counts["better"])


def compared_to_stored(generator: np.random.Generator, factor: float, families: int, launches: int = 5) -> Found:
    """Simulates calls that compare the ratios to stored of two runs, one after the other."""
    noise = json.loads(NOISE.read_text())["to_stored"]
    counts = {"worse": 0, "better": 0}
    for _ in range(families):
        changes = []
        for _ in range(FAMILY):
            of_case = noise[generator.integers(len(noise))]
            a, b = (1.4 * np.exp(_drawn(generator, of_case, launches)) for _ in range(2))
            changes.append(change_of(list(a), list(b * factor), in_turn=False))
        for verdict in verdicts(changes, [TIME_CHANGE] * FAMILY):
            if verdict in counts:
                counts[verdict] += 1
    return Found(families * FAMILY, counts["worse"], counts["better"])


def _drawn(generator: np.random.Generator, recorded: Sequence[float], count: int) -> Array:
    """Returns values that are drawn from recorded ones with replacement, a little smoothed so that no two are the same."""
    values = np.asarray(recorded)
    spread = float(values.std())
    return generator.choice(values, count) + generator.normal(0, 0.2 * spread, count)


def main() -> None:
    """Print what the comparison is worth, or record the noise of a machine."""
    if sys.argv[1:2] == ["record"]:
        found = record(Path(sys.argv[2]), Path(sys.argv[3]))
        NOISE.write_text(json.dumps(found, indent=1) + "\n")
        return
    generator = np.random.default_rng(0)
    print("unchanged, in turn:", compared_in_turn(generator, 1.0, 250))
    print("unchanged, to stored:", compared_to_stored(generator, 1.0, 250))
    for factor in (1.05, 1.1):
        for changed in (1, FAMILY):
            found = compared_in_turn(generator, factor, 400 // changed, changed)
            print(f"{factor - 1:.0%} slower, {changed} of {FAMILY} cases: {found.worse} of {found.comparisons} found")


if __name__ == "__main__":
    main()
