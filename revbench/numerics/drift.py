"""The drift of anybody's network, measured in this process: what the fixture ``revbench_drift`` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.case import Case, is_gpu
from revbench.devices.float32 import without_tf32
from revbench.errors import UserError
from revbench.numerics.drift_record import DriftRecord
from revbench.numerics.gradients import GradientDrift, compare_gradients
from revbench.numerics.networks import SetStrategy, set_strategies
from revbench.numerics.passes import Loss, random_states_kept, seed_generators
from revbench.observing.nested import map_tensors

_OTHER_BATCHES = 2  # by which the noise of a batch is measured
Batch = tuple[Any, Any] | Callable[[], tuple[Any, Any]]


def drift(
    model_factory: Callable[[], nn.Module],
    batch: Batch,
    *,
    loss: Loss | None = None,
    strategy: str | None = "reconstructed",
    set_strategy: SetStrategy = set_strategies,
    dtype: str = "float32",
    autocast: str = "none",
    device: str = "cpu",
    draws: int = 3,
    seed: int = 0,
) -> DriftRecord:
    """Measure the gradient of a network under a strategy against that of `stored` in float64.

    The random generators end as they began.

    Args:
        model_factory: makes the network, in float32, with weights of the seed that is set when it is called.
        batch: ``(inputs, targets)``, or a function that draws them: then the noise of a batch is measured, too.
        loss: from outputs and targets to a scalar; by default cross-entropy for integer targets and the mean squared error
            for others.
        strategy: ``reconstructed``, or another that `set_strategy` knows; None takes the network as it is made: one that only
            knows its own way to back-propagate has no stored twin, and its gradient is held against the derivative of its loss.
        set_strategy: ``(model, strategy)`` sets ``stored`` or `strategy` on a model; by default on every
            `revbench.reversible` inside. Give your own for reversible blocks that are not ours.
        dtype: of weights, inputs and activations: ``float32``, ``float64`` or ``bfloat16``.
        autocast: ``none``, ``bfloat16`` or ``float16``.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        draws: of weights and (if it is a function) batch.
        seed: of the first draw.

    Returns:
        A record with `metrics`, `verdict` and `assert_within`.

    Raises:
        UserError: a setting that can't be, a factory that returns no module, a model whose strategy can't be set; a
            `set_strategy` that makes another function of the network, or changes nothing.
        FloatingPointError: loss or gradient is not finite; the message says where this began.
    """
    if draws < 1:
        raise UserError(f"draws={draws} must be at least 1")
    arithmetic = Case(model="revnet-38", dtype=dtype, autocast=autocast, device=device, seed=seed).check().arithmetic
    if is_gpu(device) and not torch.cuda.is_available():
        raise UserError(f"device {device!r} is not there: PyTorch finds no CUDA device; use cpu")
    found: list[GradientDrift] = []
    with random_states_kept(), without_tf32():
        for draw in range(seed, seed + draws):
            seed_generators(draw)
            model = model_factory()
            if not isinstance(model, nn.Module):
                raise UserError(f"the model factory returned {type(model).__name__}, not a torch.nn.Module")
            drawn = batch() if callable(batch) else batch
            if not isinstance(drawn, tuple) or len(drawn) != 2:
                raise UserError("batch must be a pair (inputs, targets), or a function that returns one")

            def placed(x: Tensor) -> Tensor:
                return x.to(device, getattr(torch, dtype)) if x.is_floating_point() else x.to(device)

            inputs, targets = map_tensors(placed, drawn)
            others = [map_tensors(placed, batch()) for _ in range(_OTHER_BATCHES)] if callable(batch) else []
            model.to(device, getattr(torch, dtype)).train()
            found.append(
                compare_gradients(
                    model, loss or _default_loss(targets), inputs, targets, autocast=autocast, seed=draw,
                    strategy=strategy, set_strategy=set_strategy, other_batches=others,
                )
            )  # fmt: skip
    return DriftRecord(found, arithmetic, strategy or "stored")


def _default_loss(targets: Any) -> Loss:
    if not isinstance(targets, Tensor):
        raise UserError("the targets are no tensor; give a loss, a function of (outputs, targets)")
    return F.mse_loss if targets.is_floating_point() else F.cross_entropy
