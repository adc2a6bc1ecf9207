"""Where it was measured: the machine and its software."""

from __future__ import annotations

from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.units import human_bytes


def section(evidence: Evidence) -> Section | None:
    """Returns a table of what there is."""
    return Section.of("Where it was measured", [environment_table(evidence)])


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
    return Table("Hardware and software", ("What", "Found"), rows, 2)
