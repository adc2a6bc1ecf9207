"""Metrics over many runs of one machine, and the runs at which their level changed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.case.labels import full_title
from revbench.compare.change_points import LEAST_FOR_NOISE, levels_of_exact, levels_of_noisy
from revbench.compare.runs import GPU_TOLERANCE, TIME_CHANGE, read_finished
from revbench.errors import UserError
from revbench.probes import Metric
from revbench.probes.declared import DRIFT, FLOPS_OF_STEP, MEMORY, TIME
from revbench.results.machines import Traits, hardware_of, names_of, number_of_alike, traits_of, unlike
from revbench.results.runs import ROWS, Run
from revbench.results.schema import standing
from revbench.runner.registry import metric_named, registry

BY_DEFAULT = (
    TIME["step_seconds"], MEMORY["peak_bytes"], FLOPS_OF_STEP["step_flops"], DRIFT["smooth_amplification"],
    DRIFT["activation_error_epsilons"],
)  # fmt: skip
_MOST_DEEP = 3  # folders within folders


@dataclass(frozen=True)
class Point:
    """A metric in one run.

    Attributes:
        run: its folder's name, from the folder of all runs on.
        started: when the first of its rows was measured; UTC, ISO 8601.
        value: median over launches.
        low, high: of the launches.
        launches: how many.
    """

    run: str
    started: str
    value: float
    low: float
    high: float
    launches: int


@dataclass(frozen=True)
class ChangePoint:
    """A run from which on a metric has another level.

    Attributes:
        run: the first run of the new level.
        started: when it was measured.
        before, after: medians of the levels.
        outcome: ``worse``, ``better`` or, of a metric of which neither direction is better, ``other``.
        beside: what of the software differs from the run before: by name, both versions.
    """

    run: str
    started: str
    before: float
    after: float
    outcome: str
    beside: Mapping[str, tuple[str, str]]

    @property
    def by(self) -> str:
        """By how much, in words: a share below a doubling, else a factor; empty where the level was 0."""
        if not self.before:
            return ""
        factor = self.after / self.before
        return f"{100 * (factor - 1):+.3g} %" if 0.5 < factor < 2 else f"{factor:.3g} ×"


@dataclass
class History:
    """One metric of one case on one machine.

    Attributes:
        machine: its name.
        case: what was measured.
        metric: of its probe.
        points: in the order in which they were measured.
        changes: where its level changed.
    """

    machine: str
    case: Case
    metric: Metric
    points: list[Point] = field(default_factory=list)
    changes: list[ChangePoint] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The metric and the case in words."""
        head = self.metric.title
        return f"{head[0].upper()}{head[1:]} of {full_title(self.case)}"

    @property
    def can_tell(self) -> bool:
        """Whether a change can be told from noise: there are runs enough, and no logarithm is missing."""
        scatter_is_known = len(self.points) >= LEAST_FOR_NOISE and min(point.value for point in self.points) > 0
        return self.metric.exact or scatter_is_known

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return {
            "machine": self.machine, "case_id": self.case.id, "probe": self.metric.probe, "metric": self.metric.name,
            "unit": self.metric.unit.name or "count", "can_tell": self.can_tell,
            "points": [asdict(point) for point in self.points], "changes": [asdict(change) for change in self.changes],
        }  # fmt: skip


@dataclass(frozen=True)
class Histories:
    """All histories of a folder.

    Attributes:
        found: those with changes first.
        runs: how many runs were read.
        notes: which were passed over, and why.
    """

    found: Sequence[History]
    runs: int
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Returns all of it as plain values."""
        return {
            "schema_version": 1, "runs": self.runs, "notes": list(self.notes),
            "histories": [one.to_json() for one in self.found],
        }  # fmt: skip


@dataclass
class _Kinds:
    """The kinds of machines that there are: their hardware, and of each one environment and device to name it by."""

    hardware: list[Traits] = field(default_factory=list)
    examples: list[tuple[Mapping[str, Any], list[str]]] = field(default_factory=list)

    def number_of(self, traits: Traits, environment: Mapping[str, Any], device: str) -> int:
        """Returns the number of a machine's kind; a new one is added."""
        number = number_of_alike(self.hardware, hardware_of(traits))
        if number == len(self.examples):
            self.examples.append((environment, [device]))
        return number


def histories_of(folder: Path, *, metrics: Sequence[str] = (), pattern: str = "*") -> Histories:
    """Read all runs of a folder and find where metrics changed.

    Runs are in the order in which they were measured; machines are told apart by their hardware, so that a new PyTorch or driver
    is a run of the same machine, and is named beside a change. Run folders that can't be read are passed over with a note.

    Args:
        folder: holds run folders, or folders of them.
        metrics: names of metrics; `BY_DEFAULT` if there are none.
        pattern: of the ids of cases, as a shell's.

    Raises:
        UserError: no run there, no metric of such a name, or nothing measured of what was asked for.
    """
    asked = [metric_named(name, registry().probes) for name in metrics] or list(BY_DEFAULT)
    kinds = _Kinds()
    software: dict[tuple[int, str], Traits] = {}  # by kind of machine and run
    found: dict[tuple[int, Case, Metric], list[Point]] = {}
    notes: list[str] = []
    runs = 0
    for path in _run_folders(folder):
        name = str(path.relative_to(folder)) if path != folder else path.resolve().name
        try:
            run = read_finished(path)
        except UserError as error:
            notes.append(f"passed over: {error}")
            continue
        runs += 1
        for kind, traits, case, metric, point in _points(run, name, asked, pattern, kinds):
            software[kind, name] = traits
            found.setdefault((kind, case, metric), []).append(point)
    if not runs:
        why = f"; {notes[0]}" if notes else ""
        raise UserError(f"{folder} holds no run that can be read; give the folder that holds the run folders{why}")
    if not found:
        raise UserError(
            f"none of the {runs} runs in {folder} has {', '.join(metric.name for metric in asked)} of {pattern!r}; look at"
            " --metric and --case"
        )
    numbers = [str(i) for i in range(1, len(kinds.examples) + 1)]
    names = names_of(kinds.examples, numbers, software=False)
    histories = []
    for (kind, case, metric), points in found.items():
        points.sort(key=lambda point: (point.started, point.run))
        changes = list(_changes(case, metric, points, {p.run: software[kind, p.run] for p in points}))
        histories.append(History(names[kind], case, metric, points, changes))
    histories.sort(key=lambda one: -max((_size(change) for change in one.changes), default=0.0))
    return Histories(histories, runs, notes)


def _run_folders(folder: Path, deep: int = _MOST_DEEP) -> Iterator[Path]:
    """Returns the run folders in a folder and below it; no link is followed."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder that holds the run folders")
    if (folder / ROWS).is_file():
        yield folder
        return
    if deep:
        for child in sorted(folder.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _run_folders(child, deep - 1)


def _points(
    run: Run, name: str, asked: Sequence[Metric], pattern: str, kinds: _Kinds
) -> Iterator[tuple[int, Traits, Case, Metric, Point]]:
    """Returns what one run says: kind of machine, its traits, case, metric and point. New kinds of machines are added."""
    values: dict[tuple[int, Case, Metric], list[float]] = {}
    of_environment: dict[tuple[str, str], tuple[int, Traits]] = {}
    started = min((row.started for row in run.rows), default="")
    of_probe: dict[str, list[Metric]] = {}
    for metric in asked:
        of_probe.setdefault(metric.probe, []).append(metric)
    traits_by_kind: dict[int, Traits] = {}
    for row in standing(run.rows):
        if not row.ok or row.probe not in of_probe or not fnmatchcase(row.case.id, pattern):
            continue
        key = row.environment_id, row.case.device
        if key not in of_environment:
            environment = run.environments.get(row.environment_id)
            if environment is None:
                continue
            traits = traits_of(environment, [row.case.device])
            of_environment[key] = kinds.number_of(traits, environment, row.case.device), traits
        kind, traits = of_environment[key]
        traits_by_kind[kind] = {**traits, "revbench": str(run.environments[row.environment_id]["packages"]["revbench"])}
        for metric in of_probe[row.probe]:
            if (value := row.number(metric.name)) is not None:
                values.setdefault((kind, row.case, metric), []).append(value)
    for (kind, case, metric), launches in values.items():
        point = Point(name, started, statistics.median(launches), min(launches), max(launches), len(launches))
        yield kind, traits_by_kind[kind], case, metric, point


def _changes(
    case: Case, metric: Metric, points: Sequence[Point], software: Mapping[str, Traits]
) -> Iterator[ChangePoint]:
    values = [point.value for point in points]
    tolerance = GPU_TOLERANCE if case.on_gpu else 0.0
    starts = levels_of_exact(values, tolerance) if metric.exact else levels_of_noisy(values, TIME_CHANGE)
    for start, first, end in zip(starts, [0, *starts], [*starts[1:], len(values)], strict=False):
        before, after = statistics.median(values[first:start]), statistics.median(values[start:end])
        if metric.exact and abs(after - before) <= tolerance * abs(before):
            continue  # one run was off, and its level as a whole is not
        better = {"lower": after < before, "higher": after > before}.get(metric.better or "")
        outcome = "other" if better is None else "better" if better else "worse"
        beside = unlike(software[points[start - 1].run], software[points[start].run])
        yield ChangePoint(points[start].run, points[start].started, before, after, outcome, beside)


def _size(change: ChangePoint) -> float:
    low, high = sorted((abs(change.before), abs(change.after)))
    return high / low if low else float("inf")
