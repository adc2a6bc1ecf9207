"""The report's sections, in reading order: ours, one file each, and those that other packages bring.

A section is made by a function of the evidence that returns a `revbench.report.Section`, or None if there is nothing to say.
Another package's is found by the entry point group ``revbench.report_sections``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points

from revbench.errors import UserError, first_line
from revbench.report.document import Section
from revbench.report.evidence import Evidence
from revbench.report.sections import (
    claims,
    depth,
    depth_speed,
    drift,
    failures,
    iso_memory,
    libraries,
    machine,
    memory,
    methods,
    networks,
    other_probes,
    overview,
    system_memory,
    time,
    training,
)

GROUP = "revbench.report_sections"

MakeSection = Callable[[Evidence], Section | None]

_BEFORE_OTHERS: Sequence[MakeSection] = (
    overview.section, memory.section, system_memory.section, depth.section, time.section, iso_memory.section,
    depth_speed.section, libraries.section, drift.section, drift.causes_section, training.section, claims.section,
    networks.section, other_probes.section,
)  # fmt: skip
_AFTER_OTHERS: Sequence[MakeSection] = (failures.section, machine.section, methods.section)


def all_sections(evidence: Evidence) -> tuple[list[Section], list[str]]:
    """Returns the sections of one environment, and a line for each section of another package that can't be had."""
    found = [make(evidence) for make in _BEFORE_OTHERS]
    problems: list[str] = []
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else entry.module
        try:
            found.append(_made(entry, evidence))
        except UserError as error:
            problems.append(f"package {package} brings a report section that can't be had: {error}")
    found += [make(evidence) for make in _AFTER_OTHERS]
    return [section for section in found if section is not None], problems


def _made(entry: EntryPoint, evidence: Evidence) -> Section | None:
    """Returns what a function of another package makes of the evidence.

    Raises:
        UserError: it can't be imported, raises, or makes something else.
    """
    try:
        section = entry.load()(evidence)
        if section is None:
            return None
        if not isinstance(section, Section):
            raise TypeError(f"it returned a {type(section).__name__}, not a revbench.report.Section")
        section.check()
    except (Exception, SystemExit) as error:  # of a stranger's function, which may do anything
        raise UserError(f"{entry.value}: {type(error).__name__}: {first_line(error)[:300]}") from error
    return section if section.blocks else None
