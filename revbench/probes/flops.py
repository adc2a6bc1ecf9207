"""Floating-point operations of a training step."""

from __future__ import annotations

from revbench.observing.operator_calls import EachOperator
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.operations import Operations
from revbench.workload import Workload, build_workload


def measure_flops(workload: Workload, *, progress: Progress) -> Measurement:
    """Count a step's operations: products of matrices, convolutions, attention and recurrent layers.

    A multiplication and an addition count as two. Batch norm, ReLU and additions are not counted, as in the
    paper's add-multiplies (Gomez et al. 2017, section 3.2).

    The counter does not see into compiled code: a case with ``compile`` is counted uncompiled, and says so in
    ``counted``. Operators without a formula that multiply are named in ``uncounted_operators``: then the step has more
    operations than were counted.

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
    operations = Operations()
    with EachOperator(operations.note):
        loss = workload.forward(inputs, targets)
        forward = operations.flops
        loss.backward()
    metrics: dict[str, Value] = {
        "step_flops": operations.flops, "forward_flops": forward, "backward_flops": operations.flops - forward
    }  # fmt: skip
    if (words := operations.uncounted_words()) is not None:
        metrics["uncounted_operators"] = words
    return Measurement(metrics | ({"counted": "without compilation"} if compiled else {}))
