"""Where it was measured: the machine and its software."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from revbench.probes.declared import TIME
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.units import human_bytes

_MOST_COMMANDS = 4


def _cores(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} cores (at most {max(values):.2f})"


def _clock(values: Sequence[float]) -> str:
    return f"{min(values):,.0f} to {max(values):,.0f} MHz"


# What a row of the probe `time` says of the machine meanwhile.
_MEANWHILE: Sequence[tuple[str, str, Callable[[Sequence[float]], str]]] = (
    ("Kept busy by others while timing", "other_cpu_cores", _cores),
    ("Taken by other virtual machines", "stolen_cpu_cores", _cores),
    ("Processor's clock", "cpu_clock_megahertz", _clock),
    ("GPU's clock", "sm_clock_megahertz", _clock),
)


def section(evidence: Evidence) -> Section | None:
    """Returns a table of what there is."""
    return Section.of("Where it was measured", [environment_table(evidence)])


def _how(evidence: Evidence) -> Iterator[list[str]]:
    """Yields by what it was measured, and what else the machine did meanwhile."""
    commands = list(dict.fromkeys(one.command for one in evidence.invocations))
    if commands:
        more = [f"and {len(commands) - _MOST_COMMANDS} more"] if len(commands) > _MOST_COMMANDS else []
        yield ["Measured by", "; ".join([*commands[:_MOST_COMMANDS], *more])]
    commits = [f"{one.commit[:12]}{', changed' if one.changed else ''}" for one in evidence.invocations if one.commit]
    if commits:
        yield ["Commit of revbench", ", ".join(dict.fromkeys(commits))]
    timed = [row for case in evidence.cases(TIME) for row in evidence.launches(case, TIME)]
    for head, name, show in _MEANWHILE:
        found = [value for row in timed if (value := row.number(name)) is not None]
        if found:
            yield [head, show(found)]


def environment_table(evidence: Evidence) -> Table:
    """Returns the machine and its software."""
    e = evidence.environment
    cpu = e["cpu"]
    rows = [
        ["Environment", str(e.get("environment_id", MISSING))],
        ["CPU", f"{cpu['model']}, {cpu['usable_cores']} of {cpu['logical_cores']} cores, {cpu['capability']}"],
        ["Memory", human_bytes(e["memory_bytes"])],
    ]
    for a in e["accelerators"]:
        limit = f", limit {a['power_limit_watts']:g} W" if a.get("power_limit_watts") else ""
        rows.append(["Accelerator", f"{a['name']}, {human_bytes(a['memory_bytes'])}, driver {a['driver']}{limit}"])
    if not e["accelerators"]:
        rows.append(["Accelerator", f"none: {e['unused_gpu']}" if "unused_gpu" in e else "none"])
    if settings := e.get("gpu_settings"):
        rows.append(["GPU settings", ", ".join(f"{name} {value}" for name, value in settings.items())])
    if "gpu_warning" in e:
        rows.append(["GPU warning", str(e["gpu_warning"])])
    packages = ", ".join(f"{name} {version}" for name, version in e["packages"].items() if version)
    rows += [["System", str(e["system"])], ["Software", f"Python {e['python']}, {packages}"]]
    rows.append(["PyTorch threads", str(e["torch"]["threads"])])
    rows += _how(evidence)
    return Table("Hardware and software", ("What", "Found"), rows, 2, name="hardware-and-software")
