"""Networks around a network: each uses it in one of the ways that go wrong, and is differentiated as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from revbench.observing.calling import call
from revbench.observing.nested import map_tensors, tensors_in


class Plainly(nn.Module):
    """The network as it is; what it is given is copied, since some free it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Any) -> Any:
        """Returns what the network makes of a copy."""
        return call(self.model, map_tensors(torch.clone, inputs))


class InputsAsParameters(nn.Module):
    """The floating-point inputs are parameters, so that their gradient is looked at, too.

    Args:
        model: the network.
        inputs: a batch, as the network takes it.
        trunk: from each of them to what the network is given; leaves if None.
        elsewhere: add a loss of the same tensors, past the network.
    """

    def __init__(
        self, model: nn.Module, inputs: Any, *, trunk: Callable[[Tensor], Tensor] | None, elsewhere: bool = False
    ) -> None:
        super().__init__()
        self.model, self._trunk, self._elsewhere = model, trunk, elsewhere
        floating = [x for x in tensors_in(inputs) if x.is_floating_point()]
        self.inputs = nn.ParameterList(nn.Parameter(x.detach().clone()) for x in floating)
        self.beside: Tensor | None = None

    def forward(self, inputs: Any) -> Any:
        """Returns what the network makes of them; `beside` is then the loss past it."""
        left = iter(self.inputs)
        given: list[Tensor] = []

        def placed(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x.clone()
            leaf = next(left)
            given.append(leaf if self._trunk is None else self._trunk(leaf))
            return given[-1]

        placed_inputs = map_tensors(placed, inputs)
        if self._elsewhere:
            outputs = call(self.model, placed_inputs)
            self.beside = torch.stack([(x.sin() * x).mean() for x in given]).sum()
            return outputs
        return call(self.model, placed_inputs)


class ChangedInPlace(Plainly):
    """An operation after the network writes its outputs over."""

    def forward(self, inputs: Any) -> Any:
        """Returns the outputs, changed."""
        outputs = super().forward(inputs)
        for y in tensors_in(outputs):
            if y.is_floating_point():
                y.mul_(1.5)
        return outputs


class CalledTwice(Plainly):
    """Two calls on different inputs before one backward pass; the outputs are added."""

    def forward(self, inputs: Any) -> Any:
        """Returns the sums of the outputs."""
        first = super().forward(inputs)
        second = super().forward(map_tensors(_beside, inputs))
        added = iter(
            [a + b if a.is_floating_point() else a for a, b in zip(tensors_in(first), tensors_in(second), strict=True)]
        )
        return map_tensors(lambda _: next(added), first)


def _beside(x: Tensor) -> Tensor:
    return x * 0.9 + 0.1 if x.is_floating_point() else x.flip(0)
