"""Probes: each measures one quantity of a training step, in a pass of its own, and returns a frozen record.

`Probe` and `Metric` declare what a probe measures; `Measurement` is what its function returns. A probe of another package is
found by the entry point group ``revbench.probes``.
"""

from revbench.probes.declaration import Metric, Probe
from revbench.probes.measurement import Measurement, Progress, Value

__all__ = ["Measurement", "Metric", "Probe", "Progress", "Value"]
