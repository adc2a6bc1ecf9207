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
    """

    def __init__(self, model: nn.Module, inputs: Any, *, trunk: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model, self._trunk = model, trunk
        floating = [x for x in tensors_in(inputs) if x.is_floating_point()]
        self.inputs = nn.ParameterList(nn.Parameter(x.detach().clone()) for x in floating)

    def forward(self, inputs: Any) -> Any:
        """Returns what the network makes of them."""
        left = iter(self.inputs)

        def placed(x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x.clone()
            leaf = next(left)
            return leaf if self._trunk is None else self._trunk(leaf)

        return call(self.model, map_tensors(placed, inputs))


class GivenALeaf(Plainly):
    """What enters the blocks is a parameter, in place of what the network before them makes.

    Args:
        model: the network.
        first: the module that the blocks begin with.
        inputs: a batch, of which the parameter's value is made.
    """

    def __init__(self, model: nn.Module, first: str, inputs: Any) -> None:
        super().__init__(model)
        entered: list[Tensor] = []

        def look(module: nn.Module, args: tuple[Any, ...]) -> None:
            entered.extend(x.detach().clone() for x in args[:1] if isinstance(x, Tensor) and x.is_floating_point())

        handle = model.get_submodule(first).register_forward_pre_hook(look)
        with torch.no_grad():
            call(model, map_tensors(torch.clone, inputs))
        handle.remove()
        self.leaf = nn.Parameter(entered[0]) if entered else None
        if entered:
            model.get_submodule(first).register_forward_pre_hook(lambda module, args: (self.leaf, *args[1:]))


class UsedElsewhere(Plainly):
    """What enters the blocks, and what leaves them, has a loss of its own beside the network's.

    Args:
        model: the network.
        first, last: the modules that the blocks begin and end with.
    """

    def __init__(self, model: nn.Module, first: str, last: str) -> None:
        super().__init__(model)
        self._seen: list[Tensor] = []
        model.get_submodule(first).register_forward_pre_hook(
            lambda module, args, kwargs: self._note((args, kwargs)), with_kwargs=True
        )
        model.get_submodule(last).register_forward_hook(lambda module, args, outputs: self._note(outputs))

    def _note(self, values: Any) -> None:
        self._seen += [x for x in tensors_in(values) if x.is_floating_point()]

    def forward(self, inputs: Any) -> Any:
        """Returns what the network makes of them."""
        self._seen.clear()
        return super().forward(inputs)

    def beside(self) -> Tensor:
        """Returns the loss beside that of the last call."""
        seen = self._seen[:]
        self._seen.clear()
        return torch.stack([(x.sin() * x).mean() for x in seen]).sum()


class ChangedInPlace(Plainly):
    """An operation after the blocks writes their outputs over.

    Args:
        model: the network.
        last: the module that the blocks end with.
    """

    def __init__(self, model: nn.Module, last: str) -> None:
        super().__init__(model)

        def change(module: nn.Module, args: Any, outputs: Any) -> None:
            for y in tensors_in(outputs):
                if y.is_floating_point():
                    y.mul_(1.5)

        model.get_submodule(last).register_forward_hook(change)


class CalledTwice(Plainly):
    """Two calls on different inputs before one backward pass."""

    def forward(self, inputs: Any) -> Any:
        """Returns the outputs of both."""
        return super().forward(inputs), super().forward(map_tensors(_beside, inputs))


def _beside(x: Tensor) -> Tensor:
    return x * 0.9 + 0.1 if x.is_floating_point() else x.flip(0)
