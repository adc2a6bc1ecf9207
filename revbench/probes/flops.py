"""Floating-point operations of a training step."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from revbench.probes.found import Found, Metric, Progress
from revbench.workload import Workload, build_workload


def measure_flops(workload: Workload, *, progress: Progress) -> Found:
    """Count a step's operations with PyTorch's own counter: matrix products and convolutions.

    A multiplication and an addition count as two. Batch norm, ReLU and additions are not counted, as in the
    paper's add-multiplies (Gomez et al. 2017, section 3.2).

    The counter does not see into compiled code: a case with ``compile`` is counted uncompiled, and says so in
    ``counted``.

    Raises:
        NotImplementedError: strategy ``torch_budget``, whose compiler decides what is computed twice.

    Returns:
        Metrics ``step_flops``, ``forward_flops``, ``backward_flops``; recomputation counts to backward.
    """
    if workload.case.strategy == "torch_budget":
        raise NotImplementedError("operations can't be counted in compiled code, and torch_budget is nothing else")
    compiled = workload.case.compile
    if compiled:
        workload = build_workload(workload.case.replace(compile=False))
    inputs, targets = workload.batch()
    with FlopCounterMode(display=False) as forward:
        loss = workload.forward(inputs, targets)
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    counts = forward.get_total_flops(), backward.get_total_flops()
    metrics: dict[str, Metric] = {"step_flops": sum(counts), "forward_flops": counts[0], "backward_flops": counts[1]}
    return Found(metrics | ({"counted": "without compilation"} if compiled else {}))
