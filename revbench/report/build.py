"""From run folders to a Report object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from revbench.case.chains import Chain
from revbench.case.labels import title_of
from revbench.compare import Comparison
from revbench.errors import UserError
from revbench.report.document import Report, Section
from revbench.report.numbering import numbered
from revbench.report.parts import Part, part_named, parts_of
from revbench.report.sections import against_baseline, all_sections, machines
from revbench.results.machines import unlike
from revbench.results.schema import Row
from revbench.runner.registry import OURS, registry

_MOST_NAMED = 4  # networks in a title
_OF_DRIFT = ("drift", "lipschitz", "determinism")
_MOST_DESCRIBED = 2  # machines below it


def machines_side_by_side(
    folders: Sequence[Path], *, names: Mapping[Path, str] | None = None, relative_to: str | None = None
) -> Section:
    """Read runs and lay out what stands first in a report of several machines.

    Raises:
        UserError: as `build_report`; or the runs are of one machine, or have nothing that can stand side by side.
    """
    parts = parts_of(folders, names or {})
    beside = part_named(parts, relative_to)
    if not any(unlike(part.traits, beside.traits) for part in parts):
        raise UserError(f"all runs are of one machine, {parts[0].name}; give those of several")
    found = machines.section(parts, beside)
    if found is None:
        raise UserError("these runs have nothing that can stand side by side; measure time or memory")
    return numbered([found])[0]


def build_report(
    folders: Sequence[Path],
    *,
    names: Mapping[Path, str] | None = None,
    relative_to: str | None = None,
    comparison: Comparison | None = None,
) -> Report:
    """Read runs and lay out their report: one part for each run and kind of machine, and before them, if there are several, all
    side by side.

    Args:
        folders: of runs.
        names: of some of them, instead of their machines'.
        relative_to: the name of the machine that the others stand beside; the first if not given.
        comparison: with a baseline.

    Raises:
        UserError: a folder that is no run, a run without a row, one that is given twice, or no machine of this name.
    """
    parts = parts_of(folders, names or {})
    beside = part_named(parts, relative_to)
    several = len(parts) > 1
    sections: list[Section] = []
    subtitles: list[str] = []
    notes: list[str] = []
    if several and (side_by_side := machines.section(parts, beside)) is not None:
        sections.append(side_by_side)
    for part in parts:
        subtitles.append(_where(part))
        found, problems = all_sections(part.evidence)
        sections += [dataclasses.replace(section, part=part.name if several else "") for section in found]
        notes += problems
        if any(row.probe not in OURS for row in part.evidence.rows):
            notes += registry().problems
    if comparison is not None:
        sections.insert(min(1, len(sections)), against_baseline.section(comparison))
    dates = sorted(min(row.started for row in part.evidence.rows)[:10] for part in parts)
    subtitle = (
        " | ".join(subtitles) if len(parts) <= _MOST_DESCRIBED else f"{len(parts)} runs, {dates[0]} to {dates[-1]}"
    )
    title = _title(parts)
    return Report(title, subtitle, numbered(sections), list(dict.fromkeys(notes)))


def _title(parts: Sequence[Part]) -> str:
    """Says which run it is: of which networks, and on which machines."""
    measured = dict.fromkeys(row.case for part in parts for row in part.evidence.rows)
    cases = [case for case in measured if case.strategy == "reconstructed"] or list(measured)
    names = list(dict.fromkeys("chains of blocks" if Chain.of(case) else title_of(case.model) for case in cases))
    names.sort(key=lambda name: name == "chains of blocks")
    if len(names) > _MOST_NAMED:
        names[_MOST_NAMED:] = [f"{len(names) - _MOST_NAMED} more"]
    what = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    machines = list(dict.fromkeys(part.name for part in parts))
    different = len({part.evidence.machine for part in parts})
    where = (
        machines[0] if len(machines) == 1 else f"{different} machine{'s' if different > 1 else ''}, {len(parts)} runs"
    )
    rows = [row for part in parts for row in part.evidence.rows]
    named = what if ":" in names[0] else f"{what[:1].upper()}{what[1:]}"  # a factory's name is somebody's own
    return f"{named}: {_subject(rows)}, {where}"


def _subject(rows: Sequence[Row]) -> str:
    """Returns what a run is about: two of the same networks need not be about the same."""
    chains = [Chain.of(row.case) for row in rows]
    if all(row.case.training_steps for row in rows):
        return f"trainings on {' and '.join(dict.fromkeys(row.case.data for row in rows))}"
    if all(row.case.memory_limit_bytes for row in rows):
        return "speed within the same memory"
    if all(row.probe in _OF_DRIFT for row in rows):
        return "drift of the gradient"
    if all(chain is not None and chain.names_library for chain in chains):
        return "libraries and PyTorch's own ways"
    if all(chain is not None for chain in chains) and not any(row.probe in _OF_DRIFT for row in rows):
        return "memory against depth"
    return "stored or reconstructed activations"


def _where(part: Part) -> str:
    first = min(row.started for row in part.evidence.rows)
    return f"{part.evidence.machine}; {first[:16].replace('T', ' ')} UTC"
