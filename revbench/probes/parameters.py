"""How many parameters a model has."""

from __future__ import annotations

from revbench.probes.found import Found, Progress
from revbench.workload import Workload


def measure_parameters(workload: Workload, *, progress: Progress) -> Found:
    """Count the parameters, batch norm's scales and shifts and all biases among them, as Table 2 of the paper does.

    Returns:
        Metric ``parameters``; buffers (running statistics) are not counted.
    """
    return Found({"parameters": sum(p.numel() for p in workload.model.parameters())})
