"""Reversible blocks over anybody's functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from revbench.backprop.arguments import Call
from revbench.backprop.coupling import Coupling, HalfStep, function_names
from revbench.backprop.couplings import ADDITIVE, Additive, coupling_of
from revbench.backprop.plain import plain_container

State = tuple[Tensor, ...]


class ReversibleBlock(nn.Module):
    """A few half steps: under the additive coupling ``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` (Gomez et al. 2017, equation 6).

    Called by itself it runs under plain autograd; `propagate` and `ReversibleChain` choose otherwise.

    Args:
        functions: modules that map the other streams to a tensor of the shape of the one that they change.
        coupling: how they and the streams are put together.

    Attributes:
        f, g: the functions; of more than two ``f1``, ``f2``, ….
    """

    f: nn.Module
    g: nn.Module

    def __init__(self, *functions: nn.Module, coupling: str | Coupling = ADDITIVE) -> None:
        super().__init__()
        self.coupling = coupling_of(coupling)
        self._names = [name.lower() for name in function_names(len(functions))]
        for name, function in zip(self._names, functions, strict=True):
            self.add_module(name, function)

    @property
    def functions(self) -> list[nn.Module]:
        """What it is made of, in order."""
        return [self.get_submodule(name) for name in self._names]

    def half_steps(self, *, starts: bool = False) -> list[HalfStep]:
        """Returns what it does, one after the other; `starts` says whether the streams are those that one tensor became."""
        return self.coupling.half_steps(self.functions, starts=starts)

    def forward(self, *state: Tensor, arguments: Sequence[Call] = (), starts: bool = False) -> State:
        """Returns the streams after it, each of the shape that it had.

        Args:
            state: the streams.
            arguments: what each function is called with after the streams; nothing if empty.
            starts: as of `half_steps`.
        """
        for step in self.half_steps(starts=starts):
            b, *a = state
            state = (*a, step.rule.forward(b, a, _value(step, a, arguments)))
        return state

    @torch.no_grad()
    def inverse(self, *state: Tensor, arguments: Sequence[Call] = ()) -> State:
        """Returns the streams before it, of those after it (equation 7), without gradient; arguments as of `forward`."""
        for step in reversed(self.half_steps()):
            *a, out = state
            state = (step.rule.inverse(out, a, _value(step, a, arguments)), *a)
        return state


# A coupling of somebody's own may have rules that hold weights.
plain_container(ReversibleBlock, lambda block: type(block.coupling).__module__ == Additive.__module__)


def _value(step: HalfStep, a: Sequence[Tensor], arguments: Sequence[Call]) -> Tensor:
    args, kwargs = arguments[step.argument] if arguments and step.argument is not None else ((), {})
    value: Tensor = step.function(*a, *args, **kwargs)
    return value


def is_reversible(unit: nn.Module) -> bool:
    """Tells whether a unit is a block that can be reconstructed; a subclass with a forward of its own is not."""
    own = isinstance(unit, ReversibleBlock) and type(unit).forward is ReversibleBlock.forward
    return own and "forward" not in unit.__dict__


def pieces_of(units: Iterable[nn.Module]) -> list[nn.Module]:
    """Returns what a strategy calls of these units: the functions of a reversible block, the others whole."""
    pieces: list[nn.Module] = []
    for unit in units:
        pieces += unit.functions if isinstance(unit, ReversibleBlock) and is_reversible(unit) else [unit]
    return pieces
