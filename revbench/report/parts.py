"""The parts of a report: one for each run and kind of machine in it, each with a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from revbench.errors import UserError, unknown
from revbench.report.evidence import Evidence
from revbench.results.machines import Traits, environments_alike, names_of, traits_of
from revbench.results.runs import read_run


@dataclass(frozen=True)
class Part:
    """What one run says of one kind of machine.

    Attributes:
        name: of the machine; no two parts of a report have the same.
        folder: of the run.
        evidence: its rows.
        devices: that were measured on.
    """

    name: str
    folder: Path
    evidence: Evidence
    devices: Sequence[str] = field(default_factory=tuple)

    @property
    def traits(self) -> Traits:
        """What makes its times unlike others'."""
        return traits_of(self.evidence.environment, self.devices)


def parts_of(folders: Sequence[Path], names: Mapping[Path, str]) -> list[Part]:
    """Read runs.

    Args:
        folders: of runs.
        names: of some of them, instead of their machines'.

    Raises:
        UserError: a folder that is no run, a run without a row or with a row of an unknown environment, or a run that is given
            twice.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError("a run folder is given twice; name each once")
    found: list[tuple[Path, Evidence, list[str]]] = []
    for folder in folders:
        run = read_run(folder)
        if not run.rows:
            raise UserError(f"{folder} holds no rows yet; measure something first")
        for ids in environments_alike(run):
            evidence = Evidence(run, *ids)
            found.append((folder, evidence, sorted({row.case.device for row in evidence.rows})))
    of_machines = names_of(
        [(evidence.environment, devices) for _, evidence, devices in found],
        [_told_apart_by(folder, folders) for folder, _, _ in found],
    )
    return [
        Part(_given(names, folder, machine, found), folder, evidence, devices)
        for machine, (folder, evidence, devices) in zip(of_machines, found, strict=True)
    ]


def _given(
    names: Mapping[Path, str], folder: Path, machine: str, found: Sequence[tuple[Path, Evidence, list[str]]]
) -> str:
    name = names.get(folder)
    if name is None:
        return machine
    return name if sum(other == folder for other, _, _ in found) == 1 else f"{name}: {machine}"


def _told_apart_by(folder: Path, folders: Sequence[Path]) -> str:
    """Returns as much of the end of a path as no other has."""
    others = [other.resolve().parts for other in folders if other.resolve() != folder.resolve()]
    parts = folder.resolve().parts
    count = next((n for n in range(1, len(parts)) if all(other[-n:] != parts[-n:] for other in others)), len(parts))
    return "/".join(parts[-count:])


def part_named(parts: Sequence[Part], name: str | None) -> Part:
    """Returns the part that others are compared with: the first, unless one is named.

    Raises:
        UserError: no part has this name.
    """
    if name is None:
        return parts[0]
    by_name = {part.name: part for part in parts}
    if name not in by_name:
        raise unknown("machine", name, by_name)
    return by_name[name]
