"""One call of a module, recorded so that backward can make it again and leave no trace.

What a second call would see or change differently from the first, and what is done about it:

- random numbers: the generators' states are kept if the first call drew from them, and put back
  around the second, so that dropout masks are equal and the global state is untouched;
- batch-norm statistics: in training the second call uses the batch's own statistics and writes
  none (``track_running_stats`` is off for its duration);
- any other buffer that the first call changed: the second gets the value from before, and its own
  changes are dropped;
- ``train()`` or ``eval()`` called in between: the flags of the first call are put back;
- autocast: the first call's setting is entered again, without the weight cache (a cached cast made
  without gradient would be taken by a later call that wants one);
- parameters: the second call sees detached aliases, so that hooks on the caller's parameters fire
  once, when autograd accumulates the gradient, and not also inside the recomputation.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_thread = threading.local()


def is_recomputing() -> bool:
    """True inside a module while the backward pass runs it a second time.

    Module hooks fire in both passes, as under ``torch.utils.checkpoint``; a hook that counts or logs
    can ask this first.
    """
    return getattr(_thread, "depth", 0) > 0


class Recording:
    """A module and what its first call found; `again` recreates that for a later call.

    Args:
        module: the module to be run twice.
        name: how errors call it, e.g. ``block 3's G``.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self._modules = list(module.modules())
        self._slots = [
            (owner, key, parameter)
            for owner in self._modules
            for key, parameter in owner._parameters.items()
            if parameter is not None
        ]
        self.parameters: list[nn.Parameter] = list({id(p): p for _, _, p in self._slots}.values())

    def first(self, *inputs: Tensor) -> Any:
        """Run the module and record the circumstances. Call it without gradient.

        Raises:
            RuntimeError: the module changed its input in place, which no later pass could undo.
        """
        self._training = [module.training for module in self._modules]
        self._versions = [parameter._version for parameter in self.parameters]
        device = inputs[0].device.type
        self._autocast = (device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        buffers = [
            (owner, key, buffer, buffer._version, buffer.clone())
            for owner in self._modules
            if not hasattr(owner, "track_running_stats")
            for key, buffer in owner._buffers.items()
            if buffer is not None
        ]
        before = [x._version for x in inputs]
        rng = _rng_states(inputs[0].device)
        with self._autocast_again():
            outputs = self.module(*inputs)
        self._rng = rng if _differ(rng, _rng_states(inputs[0].device)) else None
        if before != [x._version for x in inputs]:
            raise RuntimeError(f"{self.name} changes its input in place; let its first operation write a new tensor")
        self._buffers = [
            (owner, key, value) for owner, key, buffer, version, value in buffers if buffer._version != version
        ]
        return outputs

    def _autocast_again(self) -> torch.autocast:
        device, enabled, dtype = self._autocast
        return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)

    @contextmanager
    def again(self) -> Iterator[dict[int, Tensor]]:
        """Recreate the circumstances of the first call.

        Yields:
            The alias that stands in for each parameter, by the parameter's ``id``: what to
            differentiate with respect to.

        Raises:
            RuntimeError: a parameter was changed in place since the first call.
        """
        for parameter, version in zip(self.parameters, self._versions, strict=True):
            if parameter._version != version:
                raise RuntimeError(
                    f"a parameter of {self.name} (shape {tuple(parameter.shape)}) was changed in place between forward"
                    " and backward, so its gradient can't be computed; run backward before the optimizer's step"
                )
        aliases = {id(p): p.detach().requires_grad_(p.requires_grad) for p in self.parameters}
        training = [module.training for module in self._modules]
        untracked = []
        kept = [(owner, key, owner._buffers[key]) for owner, key, _ in self._buffers]
        rng = None
        if self._rng is not None:
            rng = {device: _get_rng_state(device) for device in self._rng}
        _thread.depth = getattr(_thread, "depth", 0) + 1
        try:
            for owner, key, parameter in self._slots:
                owner._parameters[key] = aliases[id(parameter)]  # type: ignore[assignment]
            for owner, key, value in self._buffers:
                owner._buffers[key] = value.clone()
            for module, flag in zip(self._modules, self._training, strict=True):
                module.training = flag
                if flag and getattr(module, "track_running_stats", False):
                    module.track_running_stats = False
                    untracked.append(module)
            if self._rng is not None:
                _set_rng_states(self._rng)
            with self._autocast_again():
                yield aliases
        finally:
            _thread.depth -= 1
            for owner, key, parameter in self._slots:
                owner._parameters[key] = parameter
            for owner, key, buffer in kept:
                owner._buffers[key] = buffer
            for module, flag in zip(self._modules, training, strict=True):
                module.training = flag
            for module in untracked:
                module.track_running_stats = True
            if rng is not None:
                _set_rng_states(rng)


def _get_rng_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _rng_states(device: torch.device) -> dict[torch.device, Tensor]:
    """The states of the generators that a module on this device may draw from."""
    devices = {torch.device("cpu")}
    if device.type == "cuda":
        devices.add(device)
    return {d: _get_rng_state(d) for d in devices}


def _set_rng_states(states: dict[torch.device, Tensor]) -> None:
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)


def _differ(before: dict[torch.device, Tensor], after: dict[torch.device, Tensor]) -> bool:
    # Through bytes, not torch.equal: a dispatch mode that counts operations must not see this one.
    return any(state.numpy().tobytes() != after[device].numpy().tobytes() for device, state in before.items())
