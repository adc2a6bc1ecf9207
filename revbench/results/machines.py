"""Which machine a row was measured on: what it is called, and what makes its times unlike another's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from revbench.case import index_in, is_gpu
from revbench.errors import UserError
from revbench.results.runs import Run
from revbench.units import human_bytes

Environment = Mapping[str, Any]
Traits = Mapping[str, str]

_HARDWARE = ("CPU", "CPU revision", "cores", "threads", "GPU", "GPU memory", "power limit")
_ORNAMENTS = re.compile(r"\ANVIDIA\s+|\s+(HBM\d\w*|SXM\d|PCIe)\b|\((R|TM)\)|\s+CPU\b|\s+@.*\Z")


def traits_of(environment: Environment, devices: Iterable[str]) -> Traits:
    """Returns what makes times of a machine unlike another's, by what a person calls it.

    Args:
        environment: as `revbench.runner.environment.describe_environment` gives it.
        devices: what was measured on: of ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        The processor with its capability, cores and threads, and PyTorch with its build; of a GPU that was used also its model,
        memory, driver and power limit, CUDA, cuDNN and what is set of its allocator. Not who it is: two GPUs of one kind are
        alike. What an older run did not say is missing.
    """
    cpu, built = environment["cpu"], environment["torch"]
    found = {
        "CPU": cpu["model"], "CPU revision": cpu.get("revision"), "CPU capability": cpu["capability"],
        "cores": cpu["usable_cores"], "PyTorch": environment["packages"]["torch"], "PyTorch build": built.get("build"),
        "threads": built["threads"],
    }  # fmt: skip
    gpus = gpus_of(environment, devices)
    if gpus:
        found["GPU"] = _each(gpu["name"] for gpu in gpus)
        found["GPU memory"] = _each(human_bytes(gpu["memory_bytes"]) for gpu in gpus)
        found["driver"] = _each(gpu["driver"] for gpu in gpus)
        found["power limit"] = _each(_watts(gpu.get("power_limit_watts")) for gpu in gpus)
        found |= {"CUDA": built["cuda"], "cuDNN": built["cudnn"]}
        settings = environment.get("gpu_settings")
        if settings is not None:
            found["GPU settings"] = ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
    return {name: str(value) for name, value in found.items() if value is not None}


def unlike(one: Traits, other: Traits) -> dict[str, tuple[str, str]]:
    """Returns the traits that two machines differ in, with both values; what one of them does not tell is no difference, but
    that one has a GPU and the other has not."""
    found = {name: (one[name], other[name]) for name in one if name in other and one[name] != other[name]}
    if ("GPU" in one) != ("GPU" in other):
        found["GPU"] = one.get("GPU", "none"), other.get("GPU", "none")
    return found


def hardware_of(traits: Traits) -> Traits:
    """Returns the traits that stay when software is installed anew."""
    return {name: value for name, value in traits.items() if name in _HARDWARE}


def number_of_alike(known: list[Traits], traits: Traits) -> int:
    """Returns which of some machines is like another one, which is added if none is.

    What one of them does not tell, as an older run, is learned from the other: so a machine that tells little is like the first
    that may be it, and makes no two others alike.
    """
    for i, other in enumerate(known):
        if not unlike(other, traits):
            known[i] = {**traits, **other}
            return i
    known.append(traits)
    return len(known) - 1


def environments_alike(run: Run) -> list[list[str]]:
    """Returns the ids of the environments of a run's rows, those of like machines together: two GPUs of one kind, say.

    Raises:
        UserError: a row names an environment that the file does not describe.
    """
    devices: dict[str, set[str]] = {}
    for row in run.rows:
        if row.environment_id not in run.environments:
            raise UserError(
                f"{run.folder}: a row names an environment {row.environment_id!r} that the file does not describe"
            )
        devices.setdefault(row.environment_id, set()).add(row.case.device)
    kinds: list[Traits] = []
    groups: list[list[str]] = []
    for key, used in devices.items():
        number = number_of_alike(kinds, traits_of(run.environments[key], used))
        if number == len(groups):
            groups.append([])
        groups[number].append(key)
    return groups


def processor_of(environment: Environment, device: str) -> str:
    """Returns the processor that decides which kernels compute, and so which bits come out: the GPU if one was used, else the
    CPU with its capability."""
    if is_gpu(device):
        return _each(gpu["name"] for gpu in gpus_of(environment, [device])) or "an unknown GPU"
    return f"{environment['cpu']['model']}, {environment['cpu']['capability']}"


def gpus_of(environment: Environment, devices: Iterable[str]) -> Sequence[Mapping[str, Any]]:
    """Returns the records of the GPUs that were used; those that the environment has not are missing."""
    indices = sorted({index_in(device) for device in devices if is_gpu(device)})
    there = environment["accelerators"]
    return [there[index] for index in indices if index < len(there)]


def name_of(environment: Environment, devices: Iterable[str], *, software: bool = True) -> str:
    """Returns what a person calls a machine: ``H100 80GB, torch 2.11``, ``AMD EPYC, 2 cores, torch 2.14``; without its software
    if that does not tell machines apart."""
    gpus = gpus_of(environment, devices)
    if gpus:
        hardware = _each(plain_name(gpu["name"]) for gpu in gpus)
    else:
        cpu = environment["cpu"]
        hardware = f"{plain_name(cpu['model'])}, {cpu['usable_cores']} cores"
    if not software:
        return hardware
    version = re.match(r"\d+\.\d+", str(environment["packages"]["torch"]))
    return f"{hardware}, torch {version[0] if version else environment['packages']['torch']}"


def names_of(
    machines: Sequence[tuple[Environment, Sequence[str]]], others: Sequence[str], *, software: bool = True
) -> list[str]:
    """Returns a name for each of some machines, no two the same.

    Args:
        machines: their environments, each with the devices that were measured on.
        others: what else tells them apart, as the folder of the run; used where their names, and what they differ in, do not.
        software: whether what is installed tells them apart, too.
    """
    names = [name_of(*machine, software=software) for machine in machines]
    traits = [traits_of(*machine) if software else hardware_of(traits_of(*machine)) for machine in machines]
    found = []
    for i, name in enumerate(names):
        same = [j for j, other in enumerate(names) if other == name and j != i]
        differing = [t for t in traits[i] if any(t in unlike(traits[i], traits[j]) for j in same)]
        found.append(", ".join([name, *(_short(t, traits[i][t]) for t in differing[:2])]))
    return [f"{name} ({other})" if found.count(name) > 1 else name for name, other in zip(found, others, strict=True)]


def names_of_environments(run: Run, groups: Sequence[Sequence[str]]) -> list[str]:
    """Returns a name for each group of environments that are alike, no two the same; see `environments_alike`."""
    machines = [
        (run.environments[ids[0]], sorted({row.case.device for row in run.rows if row.environment_id in ids}))
        for ids in groups
    ]
    return names_of(machines, [ids[0] for ids in groups])


def plain_name(model: str) -> str:
    """Returns a processor's name without ornaments: ``H100 80GB`` of ``NVIDIA H100 80GB HBM3``."""
    return " ".join(_ORNAMENTS.sub("", model).split()) or model


def _short(trait: str, value: str) -> str:
    return (
        value if trait in ("CPU", "CPU capability", "CPU revision", "GPU", "power limit") else f"{trait} {value[:40]}"
    )


def _each(values: Iterable[object]) -> str:
    return " + ".join(dict.fromkeys(str(value) for value in values if value is not None))


def _watts(value: float | None) -> str | None:
    return f"{value:g} W" if value is not None else None
