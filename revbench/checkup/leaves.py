"""Where in a network the reversible blocks are, by what backward is seen to call again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from revbench.backprop import StrategyModule
from revbench.observing.module_calls import around_module_calls


class Leaves(NamedTuple):
    """Names of modules.

    Attributes:
        all: those without children that are called in forward and return one tensor.
        inside: those of them that backward calls again: they are inside the blocks.
        called: all modules that are called where there is a graph, the innermost first; those inside the blocks are not.
    """

    all: list[str]
    inside: list[str]
    called: list[str]

    def middle(self) -> str | None:
        """Returns one inside the blocks, or in the middle of the network if it is not known where those are."""
        names = self.inside or self.all
        return names[len(names) // 2] if names else None

    def ends(self) -> tuple[str, str]:
        """Returns the modules that the blocks begin and end with: one and the same where a module that is called holds them all.

        The network itself, an empty name, if it is not known where the blocks are.
        """
        parts = [name.split(".") for name in self.inside]
        alike = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))
        common = [level[0] for level in alike]
        holders = [".".join(common[:i]) for i in range(len(common), 0, -1)]
        holder = next((name for name in holders if name in self.called and name not in self.inside), None)
        if holder is not None:
            return holder, holder
        children = dict.fromkeys(".".join(part[: len(common) + 1]) for part in parts)
        called = [name for name in children if name in self.called and name not in self.inside]
        return (called[0], called[-1]) if called else ("", "")


def leaves_of(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> Leaves:
    """Returns what is called in a forward pass without gradient, and in a forward and a backward pass.

    Args:
        model: whose weights get a gradient.
        loss_of: calls it, and returns a scalar with a graph.
    """
    names = {module: name for name, module in model.named_modules()}
    forward: dict[str, None] = {}
    called: dict[str, None] = {}
    again: dict[str, None] = {}
    with around_module_calls(after=_noting(names, forward, leaves=True)), torch.no_grad():
        loss_of(model)  # without gradient, since ours then calls all of them by `nn.Module.__call__`
    with around_module_calls(after=_noting(names, called, leaves=False)):
        loss = loss_of(model)
    with around_module_calls(after=_noting(names, again, leaves=True)):
        loss.backward()
    inside = {
        leaf for m in model.modules() if isinstance(m, StrategyModule) for p in m.pieces() for leaf in p.modules()
    }
    again |= {name: None for name in forward if model.get_submodule(name) in inside}
    return Leaves(list(forward), [name for name in forward if name in again], list(called))


def _noting(names: Mapping[nn.Module, str], into: dict[str, None], *, leaves: bool) -> Callable[[nn.Module, Any], None]:
    """Returns what notes the modules that are called: those without children that return one tensor, or all where there is a
    graph."""

    def note(module: nn.Module, outputs: Any) -> None:
        if module not in names:
            return
        if not leaves:
            if torch.is_grad_enabled():
                into[names[module]] = None
        elif not any(True for _ in module.children()) and isinstance(outputs, Tensor) and outputs.is_floating_point():
            into[names[module]] = None

    return note
