"""The states of PyTorch's generators: kept if a call drew from them, put back around the next one.

All past every dispatch mode: a state is a real tensor also where all others are fake, and who counts operations
must not see these.
"""

from __future__ import annotations

import torch
from torch import Tensor


def state_of(device: torch.device) -> Tensor:
    """The state of a device's generator."""
    with torch._C._DisableTorchDispatch():
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def random_states(device: torch.device) -> dict[torch.device, Tensor]:
    """The states of the generators that a module on this device may draw from."""
    devices = {torch.device("cpu")}
    if device.type == "cuda":
        devices.add(device)
    return {d: state_of(d) for d in devices}


def put_back(states: dict[torch.device, Tensor]) -> None:
    """Set generators to states that `random_states` gave."""
    with torch._C._DisableTorchDispatch():
        for device, state in states.items():
            if device.type == "cuda":
                torch.cuda.set_rng_state(state, device)
            else:
                torch.set_rng_state(state)


def differ(before: dict[torch.device, Tensor], after: dict[torch.device, Tensor]) -> bool:
    """Whether a generator drew something in between."""
    with torch._C._DisableTorchDispatch():
        return any(state.numpy().tobytes() != after[device].numpy().tobytes() for device, state in before.items())
