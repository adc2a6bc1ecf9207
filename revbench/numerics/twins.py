"""Whether two strategies that somebody's own function sets are two ways to one gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from revbench.errors import UserError
from revbench.numerics.passes import Step, autocast_to, device_of, seed_generators

_SAME_EPSILONS = 100.0  # within which two losses of the same function are: sums in another order


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))


def check_twins(step: Step, stored: nn.Module, own: nn.Module, inputs: Any, targets: Any, strategy: str) -> None:
    """Run both once.

    Args:
        step: how a pass is made.
        stored, own: copies of one network, on which the strategies were set.
        inputs, targets: the batch.
        strategy: what the other one is called.

    Raises:
        UserError: they compute different losses, so they are not one function; or they do the same operations in backward, so
            setting the strategy changed nothing.
    """
    (loss, backward), (other, other_backward) = (_look(step, model, inputs, targets) for model in (stored, own))
    dtype = min((p.dtype for p in stored.parameters() if p.is_floating_point()), key=lambda d: -torch.finfo(d).eps)
    if step.autocast != "none":
        dtype = getattr(torch, step.autocast)
    if abs(loss - other) > _SAME_EPSILONS * torch.finfo(dtype).eps * max(abs(loss), abs(other)):
        raise UserError(
            f"the loss is {loss:.6g} under 'stored' and {other:.6g} under {strategy!r}: set_strategy makes another function of"
            " the network, but strategies are ways to back-propagate one"
        )
    if backward == other_backward:
        raise UserError(
            f"under {strategy!r} backward does the very operations that it does under 'stored': set_strategy(model, strategy)"
            " changes nothing; let it switch the network's own way of back-propagation on and off"
        )


def _look(step: Step, model: nn.Module, inputs: Any, targets: Any) -> tuple[float, Counter[str]]:
    """The loss, and how often backward calls each operator and each function of autograd that is not PyTorch's."""
    before = {key: value.clone() for key, value in model.named_buffers()}
    device = device_of(model)
    seed_generators(step.seed)
    counted = _Count()
    try:
        with torch.enable_grad(), autocast_to(step.autocast, device):
            loss = step.loss(model(inputs), targets)
        with counted:
            loss.backward()
        return loss.item(), counted.calls
    finally:
        with torch.no_grad():
            for key, value in model.named_buffers():
                if key in before:
                    value.copy_(before[key])
        model.zero_grad(set_to_none=True)
