"""Which cases of two runs are compared with each other, on which machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from revbench.case import Case
from revbench.errors import UserError
from revbench.results.machines import Traits, processor_of, traits_of, unlike
from revbench.results.runs import Run
from revbench.results.schema import Row, standing

Place = tuple[Case, str]  # a case, a GPU's number aside, and the processor that it ran on
Measured = Mapping[str, Mapping[Place, Sequence[Row]]]  # by probe


@dataclass(frozen=True)
class Match:
    """A case that two runs, or only the compared one, have measured by one probe.

    Attributes:
        probe: its name.
        case: as the compared run has it.
        before, now: the rows that stand; none before where only the compared run has measured it.
        same_processor: whether the same kernels computed both.
        unlike: what makes their times unlike, with both values.
    """

    probe: str
    case: Case
    before: Sequence[Row]
    now: Sequence[Row]
    same_processor: bool
    unlike: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Matching:
    """All of two runs.

    Attributes:
        matches: what both have.
        missing: probe and id of the cases that only the baseline has.
        new: what only the compared run has.
    """

    matches: Sequence[Match]
    missing: Sequence[tuple[str, str]]
    new: Sequence[Match]


def match_runs(baseline: Run, current: Run) -> Matching:
    """Find for each case of a run the baseline's: on the same processor if the baseline has that; else on the baseline's,
    whatever its device.

    Raises:
        UserError: a row names an environment that its file does not describe.
    """
    before, now = measured(baseline), measured(current)
    matches: list[Match] = []
    used: set[tuple[str, Place]] = set()
    new: list[Match] = []
    for probe, places in now.items():
        old = before.get(probe, {})
        for place, rows in places.items():
            key = _match(old, place)
            if key is None:
                new.append(Match(probe, place[0], (), rows, same_processor=False, unlike={}))
                continue
            used.add((probe, key))
            differences = unlike(_traits(baseline, old[key]), _traits(current, rows))
            matches.append(Match(probe, place[0], old[key], rows, key == place, differences))
    missing = [
        (probe, place[0].id) for probe, places in before.items() for place in places if (probe, place) not in used
    ]
    return Matching(matches, missing, new)


def measured(run: Run) -> dict[str, dict[Place, list[Row]]]:
    """Returns the rows that stand, by probe, case and processor."""
    found: dict[str, dict[Place, list[Row]]] = {}
    for row in standing(run.rows):
        if row.environment_id not in run.environments:
            raise UserError(
                f"{run.folder}: a row names an environment {row.environment_id!r} that the file does not describe"
            )
        place = (
            row.case.replace(device=row.case.device_type),
            processor_of(run.environments[row.environment_id], row.case.device),
        )
        found.setdefault(row.probe, {}).setdefault(place, []).append(row)
    return found


def _match(before: Mapping[Place, Sequence[Row]], place: Place) -> Place | None:
    case = place[0]
    if place in before:
        return place
    others = [key for key in before if key[0] == case]
    others += [key for key in before if key[0].replace(device=case.device) == case]
    return next(iter(others), None)


def _traits(run: Run, rows: Sequence[Row]) -> Traits:
    return traits_of(run.environments[rows[0].environment_id], {row.case.device for row in rows})
