"""The network that is examined: fresh copies of it, its batch, and whether a gradient of it is right."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from revbench.case import Case
from revbench.errors import UserError
from revbench.numerics.derivative import distance_to_derivative, norm_of
from revbench.numerics.passes import Pass, Step, seed_generators
from revbench.observing.calling import call
from revbench.observing.module_calls import around_module_calls
from revbench.observing.nested import map_tensors, tensors_in
from revbench.workload import Workload, build_workload

Loss = Callable[[Any, Any], Tensor]

# Of the gradient's norm: what differences of the loss in float64 can't mistake (they are good to a millionth).
WRONG = 1e-3
_SURE = 1e-5  # so near a gradient is right
_FLAT = 1e-9  # so little a loss changes that does not depend on its weights
_MOVES = (1e-6, 1e-7, 1e-5)
_NAMED = 3  # tensors in words
_MOST_TENSORS = 120  # that are looked at one by one
DEPTHS = ("depth", "blocks", "num_blocks", "n_blocks", "layers", "num_layers", "n_layers", "num_hidden_layers")


class Subject:
    """A network and its batch.

    Args:
        workload: in float64, on the CPU or a GPU.

    Attributes:
        inputs, targets: the batch.
        loss: from outputs and targets to a scalar.
    """

    def __init__(self, workload: Workload) -> None:
        self.case = workload.case
        self._workload = workload
        self._pristine = workload.model
        self.inputs, self.targets = workload.batch()
        self.loss: Loss = workload.loss

    def fresh(self, *, dropout: bool = False) -> nn.Module:
        """Returns a copy of the network with the weights that it began with, in training mode.

        Args:
            dropout: whether its dropouts are active.
        """
        try:
            model = copy.deepcopy(self._pristine)
        except Exception:  # some hold what can't be copied
            model = build_workload(self.case).model
            model.load_state_dict(self._pristine.state_dict())
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd) and not dropout:
                module.eval()
        return model

    def step(self, loss: Loss | None = None) -> Step:
        """Returns how a pass is made: with the same random numbers each time."""
        return Step(loss or self.loss, seed=7)

    def run(self, network: nn.Module, loss: Loss | None = None) -> Pass:
        """Returns what one forward and one backward pass gives; buffers end as they began."""
        return self.step(loss).run(network, self.inputs, self.targets, "the network")

    def error(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None = None) -> float:
        """Returns how far a gradient is from the derivative of the loss, in the Euclidean norm.

        Of several distances over which the loss is differentiated the one at which it fits best: a kink or a step between two
        points is in one of them only, a wrong gradient in all.

        Args:
            network: whose loss it is; its weights end as they began.
            gradient: of those parameters that are asked for, by their names.
            loss: from its outputs and the targets.
        """
        found = math.inf
        for move in _MOVES:
            error = distance_to_derivative(self.step(loss), network, self.inputs, self.targets, gradient, move=move)
            found = min(found, error if math.isfinite(error) else math.inf)
            if found <= _SURE * norm_of(gradient):
                break
        return found

    def judged(self, network: nn.Module, loss: Loss | None = None) -> str | None:
        """Returns what is wrong with the gradient of a network, in words; None if it is right."""
        return self.judged_gradient(network, self.run(network, loss).gradient, loss)

    def judged_gradient(
        self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None = None
    ) -> str | None:
        """Returns the same of a gradient that is there."""
        error, size = self.error(network, gradient, loss), norm_of(gradient)
        if size == 0:
            nothing = {name: torch.zeros_like(g) for name, g in gradient.items()}
            return "there is no gradient at all" if self.error(network, nothing, loss) > _FLAT else None
        if error <= WRONG * size:
            return None
        return f"{share(error / size)} of the gradient is wrong{self._where(network, gradient, loss, size)}"

    def _where(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None, size: float) -> str:
        if len(gradient) > _MOST_TENSORS:
            return ""
        errors = {name: self.error(network, {name: g}, loss) for name, g in gradient.items()}
        without = [n for n, g in gradient.items() if norm_of({n: g}) == 0 and errors[n] > _SURE * size]
        if without:
            return f"; {_listed(without)} get none"
        worst = max(errors, key=lambda name: errors[name])
        return f", most in {_listed([worst])}"

    def called_leaves(self) -> tuple[list[nn.Module], list[nn.Module], nn.Module]:
        """Returns modules without children: those that a fresh copy calls in forward, those that backward calls again; and the
        copy."""
        model = self.fresh()
        forward: dict[nn.Module, None] = {}
        again: dict[nn.Module, None] = {}
        into = forward

        def note(module: nn.Module, outputs: Any) -> None:
            if not any(True for _ in module.children()) and isinstance(outputs, Tensor) and outputs.is_floating_point():
                into[module] = None

        with around_module_calls(after=note):
            seed_generators(7)
            loss = self.loss(call(model, self.copied()), self.targets)
            into = again
            loss.backward()
        return list(forward), list(again), model

    def copied(self) -> Any:
        """Returns a copy of the inputs: some networks free what they are given."""
        return map_tensors(torch.clone, self.inputs)

    def has_floating_inputs(self) -> bool:
        """Tells whether an input can have a gradient."""
        return any(x.is_floating_point() for x in tensors_in(self.inputs))

    def deeper(self, times: int, *, dtype: str) -> Workload | None:
        """Returns the same network so many times as deep; None if nobody knows how to make one."""
        case = self.case.replace(dtype=dtype)
        if case.factory is None:
            found = case.network
            return build_workload(case.replace(depth=max(found.depth) * times)) if found is not None else None
        argument = _depth_of(case)
        if argument is None:
            return None
        name, depth = argument
        return build_workload(case.replace(model=str(case.factory.with_arguments(**{name: depth * times}))))


def _depth_of(case: Case) -> tuple[str, int] | None:
    """Returns the argument of a factory that says how deep its network is, and its value."""
    import functools
    import importlib

    named = case.factory
    assert named is not None
    try:
        factory: Any = functools.reduce(getattr, named.attribute.split("."), importlib.import_module(named.module))
        parameters = inspect.signature(factory).parameters
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"model {case.model!r} can't be looked at: {error}") from error
    for name in DEPTHS:
        value = named.arguments.get(name, parameters[name].default if name in parameters else None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return name, value
    return None


def share(error: float) -> str:
    """Returns a share of a norm as a person reads it."""
    if error == math.inf:
        return "all"
    return f"{error:.0%}" if error >= 0.1 else f"{error:.1%}" if error >= 1e-3 else f"{error:.1e}"


def _listed(names: list[str]) -> str:
    shown = [name.removeprefix("model.") for name in names[:_NAMED]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shown) + more
