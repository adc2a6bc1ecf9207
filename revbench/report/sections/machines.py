"""Machines side by side: what stands first in a report of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from revbench.case import Case
from revbench.case.labels import network_name, strategy_of
from revbench.choices import ALL_STRATEGIES
from revbench.prediction.declared import FIT
from revbench.probes import Probe
from revbench.probes.declared import DRIFT, ENERGY, MEMORY, TIME
from revbench.report.chain_groups import has_its_own_table
from revbench.report.charts.machines import cost_of_reconstruction, time_against_memory
from revbench.report.document import MISSING, Section, Table
from revbench.report.draws import median_of_draws
from revbench.report.parts import Part
from revbench.report.table import Column, lay_out, times, tokens, value_cell, with_something, words
from revbench.results.machines import unlike
from revbench.units import human_bytes, human_rate

Line = tuple[Part, Case]
_STEP = TIME["step_seconds"]


def section(parts: Sequence[Part], relative_to: Part) -> Section | None:
    """Returns the comparison of all machines, each relative to a chosen one."""
    groups = _groups(parts)
    return Section.of(
        "Machines side by side",
        [
            time_table(groups, relative_to),
            memory_table(groups),
            time_against_memory(parts, groups),
            cost_of_reconstruction(parts, groups),
            unlike_table(parts),
        ],
    )


def _groups(parts: Sequence[Part]) -> dict[str, list[Line]]:
    """Returns what was measured of each network, machine after machine; what a batch and a device are aside."""
    found: dict[Case, list[Line]] = {}
    measured: tuple[Probe, ...] = (TIME, MEMORY, ENERGY)
    if not any(part.evidence.cases(*measured) for part in parts):
        measured = (DRIFT,)
    for part in parts:
        for case in part.evidence.cases(*measured):
            if not has_its_own_table(part.evidence, case):
                key = case.stored().replace(device="cpu", batch_size=1)
                found.setdefault(key, []).append((part, case))
    order = {part.name: i for i, part in enumerate(parts)}
    for lines in found.values():
        lines.sort(
            key=lambda line: (order[line[0].name], ALL_STRATEGIES.index(line[1].strategy), line[1].nonreversible)
        )
    names = [network_name(key) for key in found]
    alone = [
        name if names.count(name) == 1 else f"{name}, {key.arithmetic.name}"
        for key, name in zip(found, names, strict=True)
    ]
    return {
        name if alone.count(name) == 1 else f"{network_name(key)} ({key.id})": lines
        for name, (key, lines) in zip(alone, found.items(), strict=True)
    }


def time_table(groups: Mapping[str, Sequence[Line]], relative_to: Part) -> Table | None:
    """Returns machine by strategy for each network: time and energy, beside those of a chosen machine."""

    def speed(line: Line) -> float | None:
        part, case = line
        step = part.evidence.value(case, _STEP)
        return case.items / step.median if step is not None and step.median else None

    parts = {id(part): part for lines in groups.values() for part, _ in lines}
    alike = [part for part in parts.values() if part is relative_to or not unlike(part.traits, relative_to.traits)]
    alike.sort(key=lambda part: part is not relative_to)

    def mark(line: Line) -> str:
        return " *" if line[0].evidence.is_launch_bound(line[1]) else ""

    def beside(line: Line) -> str:
        case = _anywhere(line[1])
        same = ((part, c) for part in alike for c in part.evidence.cases(TIME) if _anywhere(c) == case)
        there = next(same, None)
        ours, theirs = speed(line), speed(there) if there is not None else None
        return f"{times(ours / theirs)}{mark(line)}" if ours and theirs else MISSING

    def cost(line: Line) -> str:
        ratio = line[0].evidence.time_ratio(line[1], line[1].stored())
        return MISSING if ratio is None else f"{ratio}{' †' if ratio.unstable else ''}{mark(line)}"

    others = [line for lines in groups.values() for line in lines if line[0] is not relative_to]
    has_others = any(beside(line) != MISSING for line in others)

    columns = [
        Column("Batch", lambda line: f"{line[1].batch_size:,}"),
        Column("Step", lambda line: value_cell(line[0].evidence, line[1], _STEP)),
        Column(
            "Items a second",
            lambda line: f"{human_rate(found)}{tokens(line[1])}" if (found := speed(line)) else MISSING,
        ),
        *([Column("to reference", beside)] if has_others else []),
        Column("Time to stored", cost),
        Column("Energy", lambda line: value_cell(line[0].evidence, line[1], ENERGY["joules_per_step"])),
    ]
    notes = [
        "Time to stored: with an interval of 95 %; † unstable, see the machine's own part; * launch-bound: on that GPU the host"
        " is what is timed, so that this compares hosts.",
    ]
    if has_others:
        notes.append(
            f"Reference: {relative_to.name}; items a second of the same case, with the same batch, also in another run on a like"
            " machine; a dash where there is none."
        )
    return _table("Time of machines and strategies", groups, columns, notes, needs=(TIME, ENERGY))


def memory_table(groups: Mapping[str, Sequence[Line]]) -> Table | None:
    """Returns machine by strategy for each network: memory, and how far the gradient is off."""

    def to_stored(line: Line) -> str:
        part, case = line
        return times(part.evidence.ratio(case, case.stored(), MEMORY["activation_peak_bytes"]))

    columns = [
        Column("Batch", lambda line: f"{line[1].batch_size:,}"),
        Column("Peak", lambda line: value_cell(line[0].evidence, line[1], MEMORY["peak_bytes"])),
        Column("Activations to stored", to_stored),
        Column("Largest batch", _largest_batch),
        Column("Angle", lambda line: median_of_draws(line[0].evidence, line[1], DRIFT["angle_degrees"])),
    ]
    about = {
        "Activations to stored": "memory of a step above the steady state, this strategy's over stored's.",
        "Largest batch": "by prediction, in the largest limit that was asked for.",
        "Angle": "of the gradient, against float64 from stored activations.",
    }
    return _table("Memory and gradient of machines and strategies", groups, columns, (), (MEMORY, DRIFT), about)


def _table(
    title: str,
    groups: Mapping[str, Sequence[Line]],
    columns: Sequence[Column[Line]],
    notes: Sequence[str],
    needs: Sequence[Probe],
    about: Mapping[str, str] = MappingProxyType({}),
) -> Table | None:
    """Lays out the lines that one of some probes measured, without columns that have nothing; `about` says what those are that
    have something."""
    network = {id(line): name for name, lines in groups.items() for line in lines}
    measured = [[line for line in lines if line[1] in line[0].evidence.cases(*needs)] for lines in groups.values()]
    heads: list[Column[Line]] = [
        words("Network", lambda line: network[id(line)]),
        words("Machine", lambda line: line[0].name),
        words("Strategy", lambda line: strategy_of(line[1])),
    ]
    shown = with_something(columns, [line for lines in measured for line in lines])
    said = [f"{column.head}: {about[column.head]}" for column in shown if column.head in about]
    return lay_out(title, [*heads, *shown], measured, [*notes, *([" ".join(said)] if said else [])])


def _anywhere(case: Case) -> Case:
    return case.replace(device="cpu")


def _largest_batch(line: Line) -> str:
    part, case = line
    fits = [c for c in part.evidence.cases(FIT) if c.replace(batch_size=case.batch_size, memory_limit_bytes=0) == case]
    best = max(fits, key=lambda c: c.memory_limit_bytes, default=None)
    size = part.evidence.value(best, FIT["largest_batch_size"]) if best is not None else None
    if best is None or size is None:
        return MISSING
    return f"{size.median:,.0f} in {human_bytes(best.memory_limit_bytes)}"


def unlike_table(parts: Sequence[Part]) -> Table | None:
    """Returns by name what the machines differ in."""
    traits = [part.traits for part in parts]
    differing = {name for one in traits for other in traits for name in unlike(one, other)}
    order = [name for one in traits for name in one]
    rows = [[name, *(one.get(name, MISSING) for one in traits)] for name in dict.fromkeys(order) if name in differing]
    if not rows:
        return None
    columns = ("What", *(part.name for part in parts))
    note = "What makes times unlike. Differences between two columns are those of all of this together, not of one of them."
    return Table("What the machines differ in", columns, rows, len(columns), (note,), name="unlike-machines")
