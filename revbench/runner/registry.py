"""What can be measured: every probe, ours and those that other packages bring (entry points of the group ``revbench.probes``)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from revbench.checkup.declared import DOCTOR
from revbench.errors import UserError, first_line, unknown
from revbench.prediction.declared import FIT
from revbench.probes.declaration import Metric, Probe
from revbench.probes.declared import (
    DETERMINISM,
    DRIFT,
    ENERGY,
    FLOPS_OF_STEP,
    LEAK,
    LIPSCHITZ,
    MEMORY,
    MEMORY_HISTORY,
    NVML,
    PARAMETERS,
    TIME,
)
from revbench.results.frames import OWN_COLUMNS
from revbench.training.declared import TRAINING

GROUP = "revbench.probes"

# Ours, the commonest first.
OURS: Mapping[str, Probe] = {
    probe.name: probe
    for probe in (
        TIME, MEMORY, FLOPS_OF_STEP, DRIFT, PARAMETERS, LIPSCHITZ, DETERMINISM, LEAK, NVML, MEMORY_HISTORY, ENERGY,
        FIT, TRAINING, DOCTOR,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Registry:
    """The probes that there are.

    Attributes:
        probes: by name, ours first.
        packages: the package that a probe is from, by its name, unless it is ours.
        problems: a line for each probe of another package that can't be used.
    """

    probes: Mapping[str, Probe]
    packages: Mapping[str, str]
    problems: Sequence[str]


@functools.cache
def registry() -> Registry:
    """Returns all probes. The declarations of other packages are imported here, once; what is wrong with one is no reason to
    fail."""
    probes = dict(OURS)
    packages: dict[str, str] = {}
    problems: list[str] = []
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else entry.module
        try:
            probe = _declared(entry)
            if probe.name in probes:
                owner = packages.get(probe.name, "revbench")
                raise UserError(f"the name {probe.name!r} is taken, by the package {owner}")
            if probe.name != entry.name:
                raise UserError(f"its entry point is called {entry.name!r}; call it {probe.name!r}, as the probe")
        except UserError as error:
            problems.append(f"package {package} declares a probe that can't be used: {error}")
            continue
        probes[probe.name] = probe
        packages[probe.name] = package
    return Registry(probes, packages, problems)


def _declared(entry: EntryPoint) -> Probe:
    """Returns the probe that an entry point leads to.

    Raises:
        UserError: it can't be imported, or is no declaration that can be used.
    """
    try:
        found = entry.load()
    except (Exception, SystemExit) as error:  # of a stranger's module, which may do anything
        raise UserError(
            f"{entry.value} can't be imported: {type(error).__name__}: {first_line(error)[:300]}"
        ) from error
    if not isinstance(found, Probe):
        raise UserError(f"{entry.value} is a {type(found).__name__}, not a revbench.probes.Probe")
    try:
        for metric in found.check().metrics:
            if metric.name in OWN_COLUMNS:
                raise UserError(
                    f"probe {found.name}: a metric can't be called {metric.name!r}: every row has a column of it"
                )
        return found
    except UserError:
        raise
    except Exception as error:  # of values that a stranger gave
        raise UserError(f"{entry.value}: {type(error).__name__}: {first_line(error)[:300]}") from error


def probe_of(name: str) -> Probe:
    """Returns a probe by its name.

    Raises:
        UserError: there is none of this name, or it can't be used.
    """
    if name in OURS:  # without looking at other packages
        return OURS[name]
    found = registry()
    if name not in found.probes:
        problem = f" ({'; '.join(found.problems)})" if found.problems else ""
        raise UserError(f"{unknown('probe', name, found.probes)}{problem}")
    return found.probes[name]


def offered_names() -> list[str]:
    """Returns the names of those that ``revbench run`` offers: they measure a few steps of a case that has no memory limit.

    Other packages are not imported for this; their entry points are named as their probes.
    """
    ours = [probe.name for probe in OURS.values() if not probe.resumable and probe is not FIT]
    return [*ours, *(entry.name for entry in entry_points(group=GROUP) if entry.name not in ours)]


def metric_named(
    name: str,
    probes: Mapping[str, Probe],
    wanted: Callable[[Metric], bool] = lambda metric: True,
    also: Sequence[Metric] = (),
) -> Metric:
    """Returns a metric by its name, of the first probe that has it, or by ``probe.metric``.

    Args:
        name: either.
        probes: those that are looked through, by name.
        wanted: tells which of their metrics count.
        also: further metrics, which are called without a probe.

    Raises:
        UserError: no such probe, or no such metric.
    """
    probe, _, bare = name.rpartition(".")
    if probe and probe not in probes:
        raise unknown("probe", probe, probes)
    looked_through = [probes[probe]] if probe else reversed(list(probes.values()))
    known = {metric.name: metric for one in looked_through for metric in one.metrics if wanted(metric)}
    known |= {} if probe else {metric.name: metric for metric in also}
    if bare not in known:
        raise unknown("metric", bare, known)
    return known[bare]
