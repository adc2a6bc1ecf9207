"""Joules of a step, and what watching a process through NVML costs."""

from __future__ import annotations

from revbench.report.document import MISSING, Table
from revbench.report.evidence import Evidence
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_bytes


def energy_table(evidence: Evidence) -> Table | None:
    """Energy of a step under each strategy, beside stored."""
    cases = evidence.cases("energy")
    if not cases:
        return None
    rows = []
    for case in cases:
        joules, watts = (evidence.value(case, "energy", name) for name in ("joules_per_step", "watts"))
        ratio = evidence.ratio(case, case.stored(), "energy", "joules_per_step")
        rows.append(
            [
                title_of(case.model), strategy_of(case),
                f"{joules.median:.2f} J" if joules else evidence.failure(case, "energy") or MISSING,
                f"{ratio:.2f} ×" if ratio is not None else MISSING,
                f"{watts.median:.0f} W" if watts else MISSING,
            ]
        )  # fmt: skip
    notes = [
        f"{circumstances(cases[0])}. NVML's counter of the whole GPU's energy, over windows of seconds; a dash where the GPU"
        " has no such counter."
    ]
    return Table("Energy of a training step", ("Network", "Strategy", "Energy", "to stored", "Power"), rows, 2, notes)


def process_table(evidence: Evidence) -> Table | None:
    """NVML's figure for the process while it trains, and what asking for it costs."""
    cases = [case for case in evidence.cases("nvml") if evidence.launches(case, "nvml")]
    if not cases:
        return None
    rows = []
    for case in cases:
        sizes = (
            evidence.value(case, "nvml", f"nvml_{name}_bytes")
            for name in ("process_peak", "device_before", "device_after")
        )
        slowdown = evidence.value(case, "nvml", "sampler_slowdown")
        cells = [human_bytes(size.median) if size else MISSING for size in sizes]
        rows.append(
            [title_of(case.model), strategy_of(case), *cells, f"{slowdown.median:+.2%}" if slowdown else MISSING]
        )
    interval = evidence.value(cases[0], "nvml", "sampler_interval_seconds")
    every = f", read every {interval.median * 1e3:.0f} ms" if interval else ""
    notes = [f"{circumstances(cases[0])}. High-water mark of a fresh process{every}; the step's slow-down by reading."]
    columns = ("Network", "Strategy", "Process", "Device before", "Device after", "Slow-down")
    return Table("The process through NVML", columns, rows, 2, notes)
