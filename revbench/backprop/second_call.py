"""What backward runs again of a half step, and what it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from revbench.backprop.edges import edge_to
from revbench.backprop.ownership import Holders
from revbench.backprop.recording import Recording
from revbench.backprop.strangers import refuse_strangers

Gradients = list[Tensor | None]


class Wanted(NamedTuple):
    """What a half step is asked for the gradients of.

    Attributes:
        of_inputs: of ``a`` and each tensor of the arguments of m.
        of_parameters: of each parameter of m.
        of_b: of the half that m's value was added to.
        any: whether m must be differentiated.
    """

    of_inputs: Sequence[bool]
    of_parameters: Sequence[bool]
    of_b: bool
    any: bool

    @classmethod
    def of(cls, needs_input_grad: Sequence[bool], parameters: int, grad_out: Tensor | None) -> Wanted:
        """Returns what autograd asks for, by the arguments of the half step's forward."""
        _, _, a, b, *others = needs_input_grad
        needed = grad_out is not None and (a or any(others))
        return cls((a, *others[parameters:]), others[:parameters], b, needed)

    def nothing(self) -> tuple[Gradients, Gradients]:
        """Returns no gradient of anything."""
        return [None] * len(self.of_inputs), [None] * len(self.of_parameters)


class SecondCall:
    """What m gives when it is run again: a value, which is taken once, and the graph behind it, which is gone through once.

    An edge instead of the value leads to the graph: the value is not needed once the half step is undone.
    """

    def __init__(
        self, recording: Recording, inputs: Sequence[Tensor], *, differentiate: bool, alone: Holders | None
    ) -> None:
        value, self._leaves, self._aliases = recording.run_again(inputs, differentiate=differentiate, alone=alone)
        self._recording = recording
        self._dtype: torch.dtype = value.dtype
        self.edge = edge_to(value) if value.requires_grad else None
        self._value: Tensor | None = value.detach()

    def take_value(self, dtype: torch.dtype) -> Tensor:
        """Returns the value, of which no name stays here; of truth values numbers of this dtype, since they can't be
        subtracted."""
        value, self._value = self._value, None
        assert value is not None
        return value.to(dtype) if value.dtype is torch.bool else value

    def gradients(self, grad_out: Tensor, wanted: Wanted) -> tuple[Gradients, Gradients]:
        """Returns those of inputs and parameters; what is not wanted is let go of first."""
        assert self.edge is not None
        leaves, aliases = self._leaves, self._aliases
        self._leaves, self._aliases = [], {}
        if not self._recording.plain:
            refuse_strangers([self.edge], [*leaves, *aliases.values()], self._recording)
        asked = [leaf for leaf, need in zip(leaves, wanted.of_inputs, strict=True) if need]
        parameters = zip(self._recording.parameters, wanted.of_parameters, strict=True)
        asked += [aliases[id(parameter)] for parameter, need in parameters if need]
        del leaves, aliases
        found = iter(torch.autograd.grad([self.edge], asked, grad_out.to(self._dtype), allow_unused=True))
        of_inputs = [next(found) if need else None for need in wanted.of_inputs]
        return of_inputs, [next(found) if need else None for need in wanted.of_parameters]
