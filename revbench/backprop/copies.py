"""How what a module holds is copied, and how a tensor is told from what it was."""

from __future__ import annotations

import collections
import copy
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor


def _generator_as_it_is(generator: torch.Generator) -> torch.Generator:
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    return twin


_distributed: Callable[[], bool] = (
    torch.distributed.is_initialized if torch.distributed.is_available() else lambda: False
)

# Attributes that a call may change without setting them anew, and how they are copied.
_KINDS = (
    list, dict, set, bytearray, collections.deque, collections.OrderedDict, collections.defaultdict, collections.Counter, tuple,
)  # fmt: skip
CONTAINERS: Mapping[type, Callable[[Any], Any]] = dict.fromkeys(_KINDS, copy.copy)
CONSTANT = frozenset({int, float, bool, str, bytes, type(None)})
COPIED: Mapping[type, Callable[[Any], Any]] = {
    np.ndarray: np.copy,
    torch.Generator: _generator_as_it_is,
    random.Random: copy.deepcopy,
    np.random.Generator: copy.deepcopy,
    np.random.RandomState: copy.deepcopy,
}


def with_stand_ins(container: Any, stand_ins: Mapping[int, Any]) -> Any:
    """Returns a further copy of a copied attribute, its tensors exchanged."""
    kind = type(container)
    twin = (CONTAINERS.get(kind) or COPIED[kind])(container)
    if isinstance(twin, dict):
        for key, value in container.items():
            twin[key] = stand_ins.get(id(value), value)
    elif isinstance(twin, tuple):
        return tuple(stand_ins.get(id(value), value) for value in twin)
    elif isinstance(twin, (list, collections.deque)):
        for i, value in enumerate(container):
            twin[i] = stand_ins.get(id(value), value)
    return twin


def alias(parameter: nn.Parameter, value: Tensor, need: bool) -> Tensor:
    """Returns a leaf on the memory of `value` that passes for the parameter: of its class, with its attributes."""
    kind: Any = type(parameter)
    if issubclass(kind, nn.Parameter) and kind.__torch_dispatch__ is nn.Parameter.__torch_dispatch__:
        twin: Tensor = Tensor._make_subclass(kind, value.detach(), need)
        return with_attributes(parameter, twin)
    return value.detach().requires_grad_(need)


def with_attributes(tensor: Tensor, twin: Tensor) -> Tensor:
    """`twin`, with the attributes that somebody gave to `tensor`."""
    if tensor.__dict__ and not isinstance(tensor, FakeTensor):
        twin.__dict__.update(tensor.__dict__)
    return twin


def value_of(tensor: Tensor) -> Tensor:
    """Returns a copy without history."""
    return tensor.detach().clone()


def version_of(tensor: Tensor) -> int:
    """Returns how often PyTorch has seen it change; 0 for tensors of inference, of which it does not keep count."""
    return 0 if tensor.is_inference() else tensor._version


def address_of(tensor: Tensor) -> int:
    """Returns where the data lies, as a number that another place does not share; 0 for a tensor without memory of its own."""
    if isinstance(tensor, FakeTensor):
        return 0
    try:
        if _distributed() and tensor.layout is torch.strided:
            # Sharding (`fully_shard`) frees a parameter's memory between its uses and takes other memory for the same storage.
            storage: int = tensor.untyped_storage()._cdata
            return storage + int(tensor.storage_offset())
        return tensor.data_ptr()
    except (RuntimeError, NotImplementedError):  # a wrapper around others
        return 0


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Tells whether two tensors hold the same values, NaN being equal to itself."""
    if a.shape != b.shape or a.dtype != b.dtype or a.layout is not torch.strided:
        return False
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    if not a.is_floating_point():
        return torch.equal(a, b.detach())
    return torch.equal(a, b.detach()) or bool(((a == b) | (a.isnan() & b.isnan())).all())
