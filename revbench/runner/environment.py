"""The fingerprint of the hardware and software that a row was measured on."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from revbench.case import index_in, is_gpu
from revbench.prediction.allocator import CONFIGURATIONS
from revbench.runner.unused_gpu import warnings_of_gpus, why_no_gpu
from revbench.units import human_bytes


def describe_environment() -> dict[str, Any]:
    """Describe this machine; call it in a worker, since it may initialise CUDA.

    Returns:
        A JSON-able dict with the keys ``cpu``, ``memory_bytes``, ``accelerators``, ``system``,
        ``python``, ``packages``, ``torch`` and ``environment_id``, a hash of all the rest; where there is a GPU also
        ``gpu_settings``, what else decides how it computes and allocates, and ``gpu_warning``, what PyTorch says against it;
        where there is one that PyTorch can't use, ``unused_gpu``, why. It holds no host name, user name or path.
    """
    import psutil
    import torch

    why = why_no_gpu()
    found: dict[str, Any] = {
        "cpu": {
            "model": _cpu_model(),
            "logical_cores": psutil.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "revision": _cpu_revision(),
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
            "build": str(torch.version.git_version)[:12],
        },
    }
    if found["accelerators"]:
        found["gpu_settings"] = _gpu_settings()
        if (said := warnings_of_gpus()) is not None:
            found["gpu_warning"] = said
    elif why is not None:
        found["unused_gpu"] = why
    canonical = json.dumps(found, sort_keys=True)
    return {"environment_id": hashlib.sha256(canonical.encode()).hexdigest()[:12], **found}


def summarise(environment: Mapping[str, Any], devices: Iterable[str] = ()) -> str:
    """Returns one line for a person.

    Args:
        environment: as `describe_environment` gives it.
        devices: what was measured on; all accelerators, if none is given.

    Returns:
        The accelerators, each with its name once, then the CPU and PyTorch.
    """
    cpu, accelerators = environment["cpu"], environment["accelerators"]
    used = {index_in(device) for device in devices if is_gpu(device)} if devices else set(range(len(accelerators)))
    names = dict.fromkeys(a["name"] for i, a in enumerate(accelerators) if i in used)
    where = "; ".join([*names, f"{cpu['model']}, {cpu['usable_cores']} cores"])
    return f"{where}; torch {environment['packages']['torch']}"


def lines_of(environment: dict[str, Any]) -> list[str]:
    """Returns all of it for a person, a line for each part."""
    cpu, built = environment["cpu"], environment["torch"]
    accelerators = [
        f"{a['name']}, {human_bytes(a['memory_bytes'])}, capability {a['capability']}, {a['multiprocessors']} multiprocessors,"
        f" driver {a['driver'] or 'unknown'}, {_watts(a)}{a['uuid']}"
        for a in environment["accelerators"]
    ]
    none = f"none: {environment['unused_gpu']}" if "unused_gpu" in environment else "none"
    packages = ", ".join(f"{name} {version or 'absent'}" for name, version in environment["packages"].items())
    found = {
        "environment": environment["environment_id"],
        "CPU": f"{cpu['model']}, {cpu['usable_cores']} of {cpu['logical_cores']} logical cores, {cpu['capability']}",
        "memory": human_bytes(environment["memory_bytes"]),
        "accelerators": "\n".join(accelerators) or none,
        "system": environment["system"],
        "Python": environment["python"],
        "packages": packages,
        "PyTorch": f"{built['threads']} threads, oneDNN {'yes' if built['mkldnn'] else 'no'}, CUDA {built['cuda'] or 'no'}, cuDNN"
        f" {built['cudnn'] or 'not in use'}",
    }
    if settings := environment.get("gpu_settings"):
        found["GPU settings"] = ", ".join(f"{name} {value}" for name, value in settings.items())
    if "gpu_warning" in environment:
        found["GPU warning"] = environment["gpu_warning"]
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
    return _of_cpu("model name") or platform.processor() or platform.machine()


def _cpu_revision() -> str:
    """Returns what tells processors of one name apart: a virtual machine calls many generations ``AMD EPYC``."""
    told = {name: _of_cpu(name) for name in ("cpu family", "model", "stepping", "cache size")}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value) or "unknown"


def _of_cpu(name: str) -> str | None:
    """Returns what Linux says of the first processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == name:
                    return value.strip()
    except OSError:
        pass
    return None


def _accelerators() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    from revbench.devices.gpus import usable_gpus
    from revbench.probes.nvml import Gpu, driver_version

    found = []
    for i in range(usable_gpus()):
        properties = torch.cuda.get_device_properties(i)
        with Gpu.of_torch(i) as gpu:
            limit = gpu.power_limit_watts().value
        found.append(
            {
                "name": properties.name,
                "uuid": gpu.uuid,
                "memory_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
                "multiprocessors": properties.multi_processor_count,
                "driver": driver_version(),
                "power_limit_watts": limit,
            }
        )
    return found


# Variables that change what PyTorch computes on a GPU, or where it allocates.
_VARIABLES = (
    *CONFIGURATIONS, "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_MODULE_LOADING",
)  # fmt: skip


def _gpu_settings() -> dict[str, str]:
    """Returns what, besides hardware and versions, decides how a GPU computes and allocates."""
    import torch

    found = {
        "hip": torch.version.hip, "allocator": torch.cuda.get_allocator_backend(),
        **{name: os.environ.get(name) for name in _VARIABLES},
    }  # fmt: skip
    return {name: value[:200] for name, value in found.items() if value is not None}


def _watts(accelerator: Mapping[str, Any]) -> str:
    limit = accelerator.get("power_limit_watts")
    return f"limit {limit:g} W, " if limit is not None else ""
