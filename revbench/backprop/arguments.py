"""Arguments that every function of a chain gets beside the activation: masks, contexts, positions.

Tensors among them are inputs of the nodes of autograd, so that those that need gradient get theirs; nested tuples, lists and
dicts are taken apart and put together by `torch.utils._pytree`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from revbench.backprop.copies import COPIED

OfEachBlock = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
Call = tuple[tuple[Any, ...], Mapping[str, Any]]  # what a function is called with: arguments, keyword arguments


class Arguments:
    """What one function is called with, after its activation.

    Args:
        args, kwargs: as the function takes them.

    Attributes:
        tensors: the tensors among them, in order.
    """

    def __init__(self, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> None:
        self._some = bool(args or kwargs)
        leaves, self._structure = tree_flatten((args, dict(kwargs or {})))
        self.tensors: list[Tensor] = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._others: list[tuple[Any] | None] = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in leaves]
        self._before: dict[int, Any] = {}  # by the id of a generator or an array: as the first call found it

    def __bool__(self) -> bool:
        return self._some

    def first(self, tensors: Sequence[Tensor], call: Callable[..., Any], name: str) -> Any:
        """Make the first call.

        Args:
            tensors: in the places of those that were given.
            call: takes arguments and keyword arguments.
            name: how errors call the function.

        Raises:
            RuntimeError: it changed a list or dict among them: what it puts there would be put there again in backward, or
                lose its gradient.
        """
        self._before = {
            id(other[0]): COPIED[type(other[0])](other[0])
            for other in self._others
            if other is not None and type(other[0]) in COPIED
        }
        left = iter(tensors)
        leaves = [next(left) if other is None else other[0] for other in self._others]
        given = tree_unflatten(leaves, self._structure)
        found = call(*given[0], **given[1])
        now, structure = tree_flatten(given)
        if structure != self._structure or any(a is not b for a, b in zip(now, leaves, strict=True)):
            raise RuntimeError(
                f"{name} changes a list or dict that it is called with, and what it puts there would have no gradient; return it"
                " through the stream, or set strategy 'stored'"
            )
        return found

    def again(self, tensors: Sequence[Tensor], call: Callable[..., Any]) -> Any:
        """Make a later call, with the same arguments; generators among them are where they were before the first call."""
        left = iter(tensors)
        twins = {key: COPIED[type(before)](before) for key, before in self._before.items()}
        leaves = [next(left) if other is None else twins.get(id(other[0]), other[0]) for other in self._others]
        args, kwargs = tree_unflatten(leaves, self._structure)
        return call(*args, **kwargs)


NO_ARGUMENTS = Arguments()


class ChainArguments:
    """The arguments of every function of a chain.

    Args:
        args, kwargs: for each function.
        f_kwargs, g_kwargs: further ones for each block's first function or each second: a dict for all of them, or a list with
            one for each block.
        blocks: how many blocks the chain has.

    Raises:
        ValueError: a list of another length, or anything but dicts.
    """

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        f_kwargs: OfEachBlock,
        g_kwargs: OfEachBlock,
        blocks: int,
    ) -> None:
        self._some = bool(args or kwargs or f_kwargs or g_kwargs)
        self._args, self._kwargs = args, kwargs
        self._own = tuple(
            _one_each(name, given, blocks) for name, given in (("f_kwargs", f_kwargs), ("g_kwargs", g_kwargs))
        )

    def __bool__(self) -> bool:
        return self._some

    def of(self, block: int, which: int) -> Call:
        """What a block's function of this number is called with: F is 0, G is 1."""
        own = self._own[which][block] if which < len(self._own) else {}
        return self._args, {**self._kwargs, **own}

    def of_unit(self, index: int, functions: int) -> dict[str, Any]:
        """Keyword arguments of a whole `ReversibleBlock` of so many functions, or of what wraps one."""
        return {"arguments": tuple(self.of(index, i) for i in range(functions))} if self else {}


class SharedArguments(ChainArguments):
    """Keyword arguments that every unit of a sequence is called with beside the state.

    Args:
        kwargs: for each.
        units: how many there are.
    """

    def __init__(self, kwargs: Mapping[str, Any], units: int) -> None:
        super().__init__((), kwargs, None, None, units)

    def of_unit(self, index: int, functions: int) -> dict[str, Any]:
        """The keyword arguments themselves."""
        return dict(self._kwargs)


def _one_each(name: str, given: Any, blocks: int) -> Sequence[Mapping[str, Any]]:
    if given is None or isinstance(given, Mapping):
        return [given or {}] * blocks
    found = list(given)
    if len(found) != blocks or not all(isinstance(one, Mapping) for one in found):
        raise ValueError(
            f"{name} must be one dict of keyword arguments, or a list of {blocks} dicts, one for each block"
        )
    return found
