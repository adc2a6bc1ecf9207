"""The fingerprint of the hardware and software that a row was measured on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from revbench.units import human_bytes


def describe_environment() -> dict[str, Any]:
    """Describe this machine; call it in a worker, since it may initialise CUDA.

    Returns:
        A JSON-able dict with the keys ``cpu``, ``memory_bytes``, ``accelerators``, ``system``,
        ``python``, ``packages``, ``torch`` and ``environment_id``, a hash of all the rest. It holds no host
        name, user name or path.
    """
    import psutil
    import torch

    found: dict[str, Any] = {
        "cpu": {
            "model": _cpu_model(),
            "logical_cores": psutil.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "memory_bytes": psutil.virtual_memory().total,
        "accelerators": _accelerators(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver()).strip() or 'libc unknown'}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("revbench", "torch", "torchvision", "numpy", "nvidia-ml-py")},
        "torch": {
            "threads": torch.get_num_threads(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
            "mkldnn": torch.backends.mkldnn.is_available(),
        },
    }
    canonical = json.dumps(found, sort_keys=True)
    return {"environment_id": hashlib.sha256(canonical.encode()).hexdigest()[:12], **found}


def summarise(environment: dict[str, Any]) -> str:
    """Returns one line for a person: the accelerator if there is one, else the CPU."""
    cpu = environment["cpu"]
    where = f"{cpu['model']}, {cpu['usable_cores']} cores"
    if environment["accelerators"]:
        where = f"{environment['accelerators'][0]['name']}; {where}"
    return f"{where}; torch {environment['packages']['torch']}"


def lines_of(environment: dict[str, Any]) -> list[str]:
    """Returns all of it for a person, a line for each part."""
    cpu, built = environment["cpu"], environment["torch"]
    accelerators = [
        f"{a['name']}, {human_bytes(a['memory_bytes'])}, capability {a['capability']}, {a['multiprocessors']} multiprocessors,"
        f" driver {a['driver'] or 'unknown'}, {a['uuid']}"
        for a in environment["accelerators"]
    ]
    packages = ", ".join(f"{name} {version or 'absent'}" for name, version in environment["packages"].items())
    found = {
        "environment": environment["environment_id"],
        "CPU": f"{cpu['model']}, {cpu['usable_cores']} of {cpu['logical_cores']} logical cores, {cpu['capability']}",
        "memory": human_bytes(environment["memory_bytes"]),
        "accelerators": "\n".join(accelerators) or "none",
        "system": environment["system"],
        "Python": environment["python"],
        "packages": packages,
        "PyTorch": f"{built['threads']} threads, oneDNN {'yes' if built['mkldnn'] else 'no'}, CUDA {built['cuda'] or 'no'}, cuDNN"
        f" {built['cudnn'] or 'not in use'}",
    }
    width = max(map(len, found))
    return [
        f"{name if i == 0 else '':<{width}}  {line}"
        for name, text in found.items()
        for i, line in enumerate(text.splitlines())
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "revbench":  # a bare working tree
            from revbench import __version__

            return __version__
        return None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerators() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    from revbench.probes.nvml import driver_version

    found = []
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        found.append(
            {
                "name": properties.name,
                "uuid": f"GPU-{properties.uuid}",
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "driver": driver_version(),
            }
        )
    return found
