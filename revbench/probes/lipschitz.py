"""Why reconstruction is as exact as it is: how much each block's F, G and inverse grow an error."""

from __future__ import annotations

import statistics

from revbench.numerics.lipschitz import block_stabilities
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload, build_workload


def measure_lipschitz(workload: Workload, *, progress: Progress, draw: int = 0) -> Measurement:
    """Estimates the local Lipschitz constants of every reversible block, and the reconstruction error that they predict.

    Args:
        workload: the case; the strategy makes no difference.
        progress: not called.
        draw: of weights and batch.

    Returns:
        Metrics ``lipschitz_f``, ``lipschitz_g``, ``lipschitz_inverse`` and ``inverse_condition`` (medians over blocks), each
        with ``_largest``; ``gain_f``, ``gain_g``, ``gain_inverse`` (root mean square growth, medians over blocks);
        ``predicted_activation_error`` and ``bounded_activation_error`` of the worst block; ``blocks``. Series: a line a block.
        See `revbench.numerics.lipschitz`.

    Raises:
        NotImplementedError: a model without a reversible block; the row's status is ``unsupported``.
    """
    case = workload.case.stored()
    built = build_workload(case.replace(seed=case.seed + draw))
    inputs, _ = built.batch()
    found = block_stabilities(built.model, inputs, autocast=case.autocast, epsilon=case.arithmetic.stream_epsilon)
    metrics: dict[str, Value] = {"blocks": len(found)}
    columns: dict[str, list[Value]] = {"level": ["block"] * len(found), "name": list(found)}
    for name in ("f", "g", "inverse"):
        for kind in ("lipschitz", "gain"):
            values = [getattr(getattr(block, name), kind) for block in found.values()]
            columns[f"{kind}_{name}"] = list(values)
            metrics[f"{kind}_{name}"] = statistics.median(values)
            if kind == "lipschitz":
                metrics[f"{kind}_{name}_largest"] = max(values)
    conditions: list[float] = [block.inverse_condition for block in found.values()]
    columns["inverse_condition"] = list(conditions)
    metrics["inverse_condition"] = statistics.median(conditions)
    metrics["inverse_condition_largest"] = max(conditions)
    for name in ("predicted", "bounded"):
        values = [getattr(block, f"{name}_error") for block in found.values()]
        columns[f"{name}_activation_error"] = list(values)
        metrics[f"{name}_activation_error"] = max(values)
    return Measurement(metrics, series=columns)
