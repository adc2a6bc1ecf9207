"""What else a machine did while something was timed, in words."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.results.schema import Row

_BUSY_CORES = 0.1  # of other processes, or stolen: from here on worth a word
# Of NVML's mask: power cap, hardware slowdown, software and hardware thermal slowdown, power brake.
_SLOWED = 0x4 | 0x8 | 0x20 | 0x40 | 0x80


def meanwhile(rows: Sequence[Row]) -> list[str]:
    """Returns what may have made times longer, each as a clause without the launch that it is said of; the most of all rows."""

    def most(name: str) -> float:
        return max((value for row in rows if (value := row.number(name)) is not None), default=0.0)

    said = []
    if (cores := most("other_cpu_cores")) > _BUSY_CORES:
        said.append(f"other processes kept {cores:.1f} cores busy")
    if (cores := most("stolen_cpu_cores")) > _BUSY_CORES:
        said.append(f"{cores:.1f} cores were taken by other virtual machines")
    if (share := most("quota_share")) > 0.01:
        said.append(f"the container's quota held it back {share:.0%} of the time")
    if any(int(row.number("throttle_reasons") or 0) & _SLOWED for row in rows):
        said.append("the GPU was throttled")
    if (faults := most("minor_faults_per_step")) > 1000:
        said.append(f"{faults:,.0f} page faults a step, its own or those of what it is set beside")
    return said
