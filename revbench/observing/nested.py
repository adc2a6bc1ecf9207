"""Tensors in whatever a batch is made of: tuples, named tuples, lists, dicts and other mappings, dataclasses."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Returns the same structure with each tensor in it changed; what holds none is handed on.

    Args:
        change: from a tensor to what stands in its place.
        value: a tensor, or any nesting of what PyTorch knows as a tree, of other mappings (of which a copy is made, so that
            they keep their class) and of dataclasses.
    """
    leaves, tree = tree_flatten(value)
    return tree_unflatten([_leaf(change, leaf) for leaf in leaves], tree)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Returns the tensors of such a structure, in its order."""
    found: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        found.append(x)
        return x

    map_tensors(note, value)
    yield from found


def dense(tensor: Tensor) -> Tensor:
    """Returns the tensor, with all its numbers if it is sparse."""
    return tensor.to_dense() if tensor.is_sparse else tensor


def _leaf(change: Callable[[Tensor], Tensor], leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return change(leaf)
    if isinstance(leaf, (list, tuple)):  # of a class of one's own
        return type(leaf)(map_tensors(change, item) for item in leaf)
    if isinstance(leaf, Mapping) and hasattr(leaf, "__setitem__"):
        changed: Any = copy.copy(leaf)
        for key in leaf:
            changed[key] = map_tensors(change, leaf[key])
        return changed
    if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
        changed = copy.copy(leaf)
        for field in dataclasses.fields(leaf):
            object.__setattr__(changed, field.name, map_tensors(change, getattr(leaf, field.name)))
        return changed
    return leaf
