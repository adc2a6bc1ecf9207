"""How many parameters a model has, and what it supports."""

from __future__ import annotations

from revbench.probes.measurement import Measurement, Progress
from revbench.workload import Workload, supported_strategies


def measure_parameters(workload: Workload, *, progress: Progress) -> Measurement:
    """Count the parameters, batch norm's scales and shifts and all biases among them, as Table 2 of the paper does.

    Returns:
        Metric ``parameters``; buffers (running statistics) are not counted. ``strategies``: of our own those that the network
        supports, separated by commas.
    """
    count = sum(p.numel() for p in workload.model.parameters())
    return Measurement({"parameters": count, "strategies": ", ".join(supported_strategies(workload))})
