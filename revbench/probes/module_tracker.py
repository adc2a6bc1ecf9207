"""Which module of a network an operation belongs to, in forward, in backward and in a recomputation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd import _get_sequence_nr as nodes_made  # type: ignore[attr-defined]

from revbench.observing.module_calls import around_module_calls


class ModuleTracker:
    """Follows the calls of a network's modules.

    While `watching`, every call of a module in this process passes through here: one thread, one network at a time.

    Args:
        model: the network; places are the qualified names of its modules. What is computed outside of it, in forward and
            in backward, is taken to be the loss.
    """

    def __init__(self, model: nn.Module) -> None:
        self._names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            self._names[module] = name or "between its modules"
        self._stack: list[str] = []
        self._makers: dict[int, str] = {}  # of each node of autograd, by its number in order of making

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow calls until the end of this context."""
        with around_module_calls(self._around):
            yield

    @contextmanager
    def _around(self, module: nn.Module) -> Iterator[None]:
        name = self._names.get(module)
        if name is None:
            yield
            return
        first = nodes_made()
        self._stack.append(name)
        try:
            yield
        finally:
            self._stack.pop()
            for number in range(first, nodes_made()):
                self._makers.setdefault(number, name)  # a child was here before its parent

    def now(self) -> str:
        """Returns the innermost module that runs now, or whose operation is being back-propagated; else ``loss``."""
        node = torch._C._current_autograd_node()
        if self._stack:
            return self._stack[-1] + (", run again" if node is not None else "")
        return "loss" if node is None else self._makers.get(node._sequence_nr(), "loss")
