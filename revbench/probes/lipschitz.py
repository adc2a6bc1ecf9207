"""Why reconstruction is as exact as it is: how much each block's F, G and inverse grow an error."""

from __future__ import annotations

import statistics

from revbench.numerics.lipschitz import Stretch
from revbench.numerics.stability import BlockStability, block_stabilities
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
        of_blocks = [_stretch_of(block, name) for block in found.values()]
        there = [one for one in of_blocks if one is not None]
        for kind in ("lipschitz", "gain"):
            columns[f"{kind}_{name}"] = [None if one is None else getattr(one, kind) for one in of_blocks]
            values: list[float] = [getattr(one, kind) for one in there]
            summaries = {"": statistics.median(values) if values else None}
            if kind == "lipschitz":
                summaries["_largest"] = max(values, default=None)
            for end, value in summaries.items():
                metrics[f"{kind}_{name}{end}"] = value
                if value is None:
                    metrics[f"{kind}_{name}{end}_reason"] = "a block of this network has one function"
    conditions: list[float] = [block.inverse_condition for block in found.values()]
    columns["inverse_condition"] = list(conditions)
    metrics["inverse_condition"] = statistics.median(conditions)
    metrics["inverse_condition_largest"] = max(conditions)
    for name in ("predicted", "bounded"):
        values = [getattr(block, f"{name}_error") for block in found.values()]
        columns[f"{name}_activation_error"] = list(values)
        metrics[f"{name}_activation_error"] = max((value for value in values if value is not None), default=None)
        if metrics[f"{name}_activation_error"] is None:
            metrics[f"{name}_activation_error_reason"] = "no activation of a chain of one half block is brought back"
    return Measurement(metrics, series=columns)


def _stretch_of(block: BlockStability, name: str) -> Stretch | None:
    if name == "inverse":
        return block.inverse
    which = ("f", "g").index(name)
    return block.functions[which] if which < len(block.functions) else None
