"""What backward runs again of a half step, and what it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from revbench.backprop.edges import edge_to
from revbench.backprop.ownership import Holders
from revbench.backprop.recording import Recording
from revbench.backprop.rules import Affine, Linear, Rule, is_linear
from revbench.backprop.strangers import refuse_strangers

Gradients = list[Tensor | None]


class Wanted(NamedTuple):
    """What a half step is asked for the gradients of.

    Attributes:
        of_inputs: of each stream ``a`` and each tensor of the arguments of m.
        of_parameters: of each parameter of m.
        of_b: of the stream that m's value was joined to.
        any: whether m must be differentiated.
    """

    of_inputs: Sequence[bool]
    of_parameters: Sequence[bool]
    of_b: bool
    any: bool

    @classmethod
    def of(cls, needs_input_grad: Sequence[bool], streams: int, parameters: int, grad_out: Tensor | None) -> Wanted:
        """Returns what autograd asks for, by the arguments of the half step's forward.

        Args:
            needs_input_grad: of each of them.
            streams: how many m is given.
            parameters: how many m has.
            grad_out: what is known of the half step's result.
        """
        _, _, b, *others = needs_input_grad
        of_inputs = (*others[:streams], *others[streams + parameters :])
        return cls(of_inputs, others[streams : streams + parameters], b, grad_out is not None and any(others))

    def nothing(self) -> tuple[Gradients, Gradients]:
        """Returns no gradient of anything."""
        return [None] * len(self.of_inputs), [None] * len(self.of_parameters)


class SecondCall:
    """What m gives when it is run again: a value, which is taken once, and the graph behind it, which is gone through once.

    An edge instead of the value leads to the graph: of a linear rule the value is not needed once the half step is undone.

    Args:
        recording: of m.
        inputs: streams, then the tensors of its arguments.
        rule: joins the value to the stream that is changed.
        differentiate: whether there is to be a graph.
        alone: what the holders of a gradient are that may be written over.
    """

    def __init__(
        self, recording: Recording, inputs: Sequence[Tensor], rule: Rule, *, differentiate: bool, alone: Holders | None
    ) -> None:
        value, self._leaves, self._aliases = recording.run_again(inputs, differentiate=differentiate, alone=alone)
        self._recording, self._rule = recording, rule
        self._changed: Tensor | None = None
        self._dtype: torch.dtype = value.dtype
        self.edge: GradientEdge | None = None
        self._root: Tensor | None = None
        self._scale_after = 1.0
        if not is_linear(rule):
            self._root = value
        elif differentiate and value.requires_grad:  # without a graph a view of a leaf says that it needs gradient, too
            scale = rule.scale
            if (
                recording.plain
            ):  # backward is linear, and what comes out of it takes less memory to scale than what goes in
                self._scale_after, scale = scale, 1.0
            with torch.enable_grad():
                self.edge = edge_to(value if scale == 1.0 else value * scale)
        self._value: Tensor | None = value.detach()

    def take_value(self, dtype: torch.dtype) -> Tensor:
        """Returns the value, of which no name stays here; of truth values numbers of this dtype, since they can't be
        subtracted."""
        value, self._value = self._value, None
        assert value is not None
        return value.to(dtype) if value.dtype is torch.bool else value

    def join(self, b: Tensor, *, needs: bool) -> None:
        """Lay the rule's own graph over that of m, if the rule is not linear, whose gradient depends on nothing.

        Args:
            b: the stream that is changed, as it was before.
            needs: whether it needs gradient.
        """
        if self._root is None:
            return
        root, self._root = self._root, None
        self._changed = b.detach().requires_grad_(needs)
        streams = self._leaves[: len(self._leaves) - len(self._recording.arguments.tensors)]
        with torch.enable_grad():
            out = self._rule.forward(self._changed, streams, root.to(b.dtype) if root.dtype is torch.bool else root)
        self._dtype = out.dtype
        self.edge = edge_to(out) if out.requires_grad else None

    def gradients(self, grad_out: Tensor, wanted: Wanted) -> tuple[Gradients, Gradients, Tensor | None]:
        """Returns those of inputs, parameters and the changed stream; what is not wanted is let go of first."""
        of_inputs, of_parameters = wanted.nothing()
        of_b = None
        if self.edge is not None:
            leaves, aliases, changed = self._leaves, self._aliases, self._changed
            self._leaves, self._aliases, self._changed = [], {}, None
            if not (self._recording.plain and type(self._rule) in _OURS):
                known = [*leaves, *aliases.values(), *([changed] if changed is not None else ())]
                refuse_strangers([self.edge], known, self._recording)
                del known
            asked = [leaf for leaf, need in zip(leaves, wanted.of_inputs, strict=True) if need]
            parameters = zip(self._recording.parameters, wanted.of_parameters, strict=True)
            asked += [aliases[id(parameter)] for parameter, need in parameters if need]
            through = changed is not None and wanted.of_b
            asked += [changed] if changed is not None and wanted.of_b else []
            del leaves, aliases, changed
            gradients = torch.autograd.grad([self.edge], asked, grad_out.to(self._dtype), allow_unused=True)
            found = iter(g if g is None else _times(g, self._scale_after) for g in gradients)
            del gradients
            of_inputs = [next(found) if need else None for need in wanted.of_inputs]
            of_parameters = [next(found) if need else None for need in wanted.of_parameters]
            of_b = next(found) if through else None
        if is_linear(self._rule):
            keep, take = self._rule.keep, self._rule.take
            last = len(wanted.of_inputs) - len(self._recording.arguments.tensors) - 1
            if take and wanted.of_inputs[last]:
                of_a = of_inputs[last]
                of_inputs[last] = _times(grad_out, take) if of_a is None else torch.add(of_a, grad_out, alpha=take)
                del of_a
            of_b = _times(grad_out, keep) if wanted.of_b else None
        return of_inputs, of_parameters, of_b


_OURS = (Linear, Affine)  # which hold no tensor of anybody's


def _times(gradient: Tensor, factor: float) -> Tensor:
    return gradient if factor == 1.0 else gradient * factor
