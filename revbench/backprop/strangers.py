"""Gradients that would be lost: tensors that a function takes from outside, and tensors that leave it beside its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.autograd.graph import GradientEdge

from revbench.backprop.edges import edge_to
from revbench.backprop.module_state import ModuleState


class Function(Protocol):
    """A function of a chain, as far as a message about one of its tensors needs it."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """The parameters of its modules."""

    @property
    def state(self) -> ModuleState:
        """What its modules hold."""


def refuse_left(leaf: Tensor, name: str) -> None:
    """Raise in backward if a gradient arrives at the input of the first call, whose graph no result leads to.

    It comes from a tensor that left the function beside its result, and would not go on to the input's own history.
    """

    def refuse(gradient: Tensor) -> None:
        raise RuntimeError(
            f"a tensor left {name} beside its result (by an attribute, a list or a global) and was differentiated, so a part of"
            " its gradient would be lost; return it through the stream, or set strategy 'stored'"
        )

    leaf.register_hook(refuse)


def nodes_behind(nodes: Iterable[Any]) -> Iterator[Any]:
    """Returns nodes of an autograd graph and all that lie behind them, on the way to the leaves; each once."""
    pending = list(nodes)
    seen = set(pending)
    while pending:
        node = pending.pop()
        yield node
        following = {n for n, _ in node.next_functions if n is not None} - seen
        seen |= following
        pending += following


def refuse_strangers(outputs: Iterable[Tensor | GradientEdge], known: Iterable[Tensor], function: Function) -> None:
    """Raise if a recomputed graph reaches a tensor that needs gradient and is neither input nor parameter.

    Its gradient would be lost without a word: the recomputation differentiates with respect to what it knows.
    """
    edges = [y if isinstance(y, GradientEdge) else edge_to(y) for y in outputs if _has_history(y)]
    leaves = {id(tensor) for tensor in known}
    seen = set()
    stranger: Any = None
    for node in nodes_behind(edge.node for edge in edges):
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            stranger = stranger if stranger is not None else variable
        if node.name() == "CheckpointFunctionBackward":
            raise RuntimeError(
                f"{function.name} holds a reentrant checkpoint, which can't be differentiated inside another backward pass;"
                " use torch.utils.checkpoint.checkpoint(…, use_reentrant=False)"
            )
    if stranger is not None:
        raise RuntimeError(
            f"{function.name} uses {_named(stranger, seen, function)} that needs gradient but is neither its input nor a"
            " registered parameter, so its gradient would be lost; pass it as chain(x, name=tensor), register it, or set"
            " strategy 'stored'"
        )


def _has_history(output: Tensor | GradientEdge) -> bool:
    return isinstance(output, GradientEdge) or output.requires_grad


def _named(stranger: Tensor, nodes: set[Any], function: Function) -> str:
    attribute = function.state.attribute_of(nodes, stranger)
    if attribute is not None:
        return attribute
    if any(stranger is parameter for parameter in function.parameters):
        return f"a reference of its own to its parameter of shape {tuple(stranger.shape)}, a tensor"
    return f"a tensor from outside (shape {tuple(stranger.shape)}, or made from one of that shape)"
