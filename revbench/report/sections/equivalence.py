"""Do stored and reconstructed end at the same error? A test of equivalence over seeds, or why there is none."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

from revbench.case import Case
from revbench.case.labels import network_name
from revbench.case.pairs import group_of, is_ordinary
from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.table import Column, lay_out, words
from revbench.training.declared import TRAINING

ENOUGH_SEEDS = 5  # for a claim that two errors are the same
MARGIN = 0.01  # of validation error: less than this is called the same

SAME, DIFFERENT = "yes", "no"  # what a test may show

Errors = dict[str, float]  # of one seed, by ``stored``, ``reconstructed`` and ``null N``


class Equivalence(NamedTuple):
    """What paired differences show, in words: their mean, its interval, and the verdict."""

    mean: str
    interval: str
    verdict: str


def trained_both_ways(evidence: Evidence) -> dict[Case, list[Errors]]:
    """Returns, of each RevNet and each seed that was trained stored and reconstructed, the validation errors at the end by
    ``stored``, ``reconstructed`` and ``null N``.
    """
    groups: dict[Case, dict[int, dict[str, float]]] = {}
    for case in evidence.cases(TRAINING):
        of_a_pair = not is_ordinary(case) and case.strategy in ("stored", "reconstructed")
        if of_a_pair and (found := evidence.value(case, TRAINING["validation_error"])):
            by_seed = groups.setdefault(case.stored().replace(seed=0, ulp=0), {})
            by_seed.setdefault(case.seed, {})[f"null {case.ulp}" if case.ulp else case.strategy] = found.median
    both = {
        case: [errors for errors in by_seed.values() if {"stored", "reconstructed"} <= errors.keys()]
        for case, by_seed in groups.items()
    }
    return {case: seeds for case, seeds in both.items() if seeds}


def against_resnet(evidence: Evidence) -> dict[Case, list[float]]:
    """Returns, of each RevNet that was trained reconstructed, its validation error minus that of the ResNet it is paired with,
    seed by seed."""
    found: dict[Case, list[float]] = {}
    for case in evidence.cases(TRAINING):
        if case.strategy == "reconstructed" and not case.ulp and not is_ordinary(case):
            ours = evidence.value(case, TRAINING["validation_error"])
            theirs = evidence.value(group_of(case), TRAINING["validation_error"])
            if is_ordinary(group_of(case)) and ours is not None and theirs is not None:
                found.setdefault(case.replace(seed=0), []).append(ours.median - theirs.median)
    return found


def differences(seeds: Sequence[Errors]) -> list[float]:
    """Returns reconstructed minus stored, seed by seed."""
    return [errors["reconstructed"] - errors["stored"] for errors in seeds]


def equivalence_table(evidence: Evidence) -> Table | None:
    """Returns a line for each RevNet that was trained both ways."""
    trained = trained_both_ways(evidence)
    found = {case: equivalence(differences(seeds)) for case, seeds in trained.items()}
    columns: list[Column[Case]] = [
        words("Network", lambda case: network_name(case)),
        words("Data", lambda case: case.data),
        Column("Seeds", lambda case: str(len(trained[case]))),
        Column("Mean difference", lambda case: found[case].mean),
        Column("90 % interval", lambda case: found[case].interval),
        Column("Same error?", lambda case: found[case].verdict),
    ]
    notes = [
        "Reconstructed minus stored, seed by seed, in points of validation error. Same: both one-sided t-tests of a difference"
        f" beyond ± {100 * MARGIN:.0f} point reject at 5 % (Schuirmann 1987), from {ENOUGH_SEEDS} seeds on whose differences are"
        " not all alike, or all 0. No: the interval lies beyond it. Anything else is no claim, either way."
    ]
    return lay_out(
        "Do stored and reconstructed end at the same error?", columns, [list(found)], notes, name=names.EQUIVALENCE
    )


def equivalence(differences: Sequence[float]) -> Equivalence:
    """Makes two one-sided t-tests of paired differences (Schuirmann 1987)."""
    mean = statistics.fmean(differences)
    shown = f"{100 * mean:+.2f}"
    if len(differences) < 2:
        return Equivalence(shown, MISSING, f"not tested: at least {ENOUGH_SEEDS} seeds")
    error = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(special.stdtrit(len(differences) - 1, 0.95)) * error
    interval = f"{100 * (mean - half):+.2f} to {100 * (mean + half):+.2f}"
    if len(differences) < ENOUGH_SEEDS:
        return Equivalence(shown, interval, f"not tested: at least {ENOUGH_SEEDS} seeds")
    if error < 1e-9 and abs(mean) >= 1e-9:
        return Equivalence(shown, MISSING, "not shown: the differences are all alike, so nobody knows how they scatter")
    if mean - half > MARGIN or mean + half < -MARGIN:
        return Equivalence(shown, interval, DIFFERENT)
    return Equivalence(shown, interval, SAME if mean - half > -MARGIN and mean + half < MARGIN else "not shown")
