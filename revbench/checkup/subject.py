"""The network that is examined: fresh copies of it, its batch, and whether a gradient of it is right.

A gradient is right if it is the derivative of the loss, which is taken from the loss at weights that are moved a little: that
needs no second network, and no knowledge of how this one back-propagates.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop.random_states import differ, random_states
from revbench.checkup.building import reconstructed
from revbench.checkup.dropouts import called_dropouts_off, switch_dropouts_off
from revbench.checkup.leaves import Leaves, leaves_of
from revbench.checkup.scenarios import Plainly
from revbench.errors import UserError, first_line
from revbench.numerics.derivative import distance_to_derivative, norm_of
from revbench.numerics.passes import Pass, Step, seed_generators
from revbench.observing.calling import call
from revbench.observing.nested import map_tensors
from revbench.observing.refusals import described
from revbench.workload import Workload, build_workload, refused

Loss = Callable[[Any, Any], Tensor]

WRONG = 5e-3  # of the norm: less is what some kernels leave out of their gradient on purpose
_SURE = 1e-5  # so near the derivative a gradient is right
_NOISE = 1e-6  # of the whole gradient's norm: what differences of the loss tell of a part of it
# How far weights are moved, of their norm: a kink or a step between two points is in one of the distances only, a wrong gradient
# in all. Small ones pass fewer kinks, large ones stand out of the rounding of a network that computes in float32 somewhere.
_MOVES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-7, 1e-8, 1e-9)
_FEW_MOVES = (1e-5, 1e-4, 1e-8)
_NAMED = 3  # tensors in words
_MOST_SECONDS = 30.0  # in which tensors are looked at one by one
_SEED = 7


class Unanswerable(Exception):
    """A check can't be made of this network; the message says why."""


class Subject:
    """A network and its batch.

    Args:
        workload: in float64, on the CPU or a GPU; what is reversible by our own engine in it is reconstructed, unless its case
            names another strategy.

    Attributes:
        inputs, targets: the batch.
        loss: from outputs and targets to a scalar.
        own_setter: sets the network's own ways to back-propagate, if its factory brings that.
    """

    def __init__(self, workload: Workload) -> None:
        self.case, self._workload = workload.case, workload
        self.own_setter = workload.own_setter
        self._pristine = reconstructed(workload).model
        self.inputs, self.targets = workload.batch()
        self.loss: Loss = workload.loss
        _move_off_the_kinks(self._pristine)

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """Names of parameters whose gradient is wrong in any case: nothing else is told by them.

        Looked for once, when a gradient is found wrong. Where that takes too long all are taken for wrong.
        """
        network = Plainly(self.fresh())
        with called_dropouts_off():  # whatever is asked just now
            found = self.run(network).gradient
            if self._wrong(network, found, None) is None:
                return frozenset()
            errors, size = self.errors(network, found), norm_of(found)
        if len(errors) < len(found):
            return frozenset(found)
        return frozenset(n for n, e in errors.items() if e > max(WRONG * norm_of({n: found[n]}), _NOISE * size))

    def check_batch(self) -> None:
        """Raise a `UserError` if the network can't be called with its batch, or its loss is no number."""
        model = self.fresh()
        try:
            with torch.no_grad():
                outputs = call(model, self.copied())
        except Exception as error:
            raise UserError(
                f"{type(model).__name__} can't be called with its batch, both in float64: {first_line(error)};"
                f" {refused(error, self._workload) or f'its inputs are {described(self.inputs)}'}"
            ) from error
        try:
            value = float(self.loss(outputs, self.targets))
        except Exception as error:
            raise UserError(
                f"the loss can't be taken of outputs {described(outputs)} and targets {described(self.targets)}:"
                f" {first_line(error)}"
            ) from error
        if not math.isfinite(value):
            raise UserError(
                f"the loss of {type(model).__name__} is {value}; give weights and a batch for which it is a number"
            )
        if not any(p.requires_grad for p in model.parameters()):
            raise UserError(f"{type(model).__name__} has no parameter that needs gradient; there is nothing to look at")

    def fresh(self, *, dropout: bool = False) -> nn.Module:
        """Returns a copy of the network with the weights that it began with, in training mode.

        Args:
            dropout: whether its dropouts are active.
        """
        try:
            model = copy.deepcopy(self._pristine)
        except Exception:  # some hold what can't be copied
            model = reconstructed(build_workload(self.case)).model
            model.load_state_dict(self._pristine.state_dict())
        model.train()
        if not dropout:
            switch_dropouts_off(model)
        return model

    def copied(self) -> Any:
        """Returns a copy of the inputs: some networks free what they are given."""
        return map_tensors(torch.clone, self.inputs)

    def loss_of(self, model: nn.Module) -> Tensor:
        """Returns the loss of a network, by the same random numbers each time."""
        seed_generators(_SEED)
        return self.loss(call(model, self.copied()), self.targets)

    def draws(self) -> bool:
        """Tells whether the network draws random numbers in forward, its dropouts being off."""
        device = self.loss_of(self.fresh()).device
        after = random_states(device)
        seed_generators(_SEED)
        return differ(after, random_states(device))

    def run(self, network: nn.Module, loss: Loss | None = None) -> Pass:
        """Returns what one forward and one backward pass gives; buffers end as they began."""
        return self._step(loss).run(network, self.inputs, self.targets, "the network")

    def _step(self, loss: Loss | None) -> Step:
        return Step(loss or self.loss, seed=_SEED)

    def error(
        self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None = None, *, moves: Sequence[float] = _MOVES
    ) -> float:  # fmt: skip
        """Returns how far a gradient is from the derivative of the loss, in the Euclidean norm, at the move where it fits best.

        Args:
            network: whose loss it is; its weights end as they began.
            gradient: of those parameters that are asked for, by their names.
            loss: from its outputs and the targets.
            moves: how far the weights are moved, of their norm.
        """
        found = math.inf
        for move in moves:
            error = distance_to_derivative(self._step(loss), network, self.inputs, self.targets, gradient, move=move)
            found = min(found, error if math.isfinite(error) else math.inf)
            if found <= _SURE * norm_of(gradient):
                break
        return found

    def errors(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None = None) -> dict[str, float]:
        """Returns the same of each parameter alone, of as many as there is time for."""
        found: dict[str, float] = {}
        began = time.monotonic()
        for name, g in gradient.items():
            if time.monotonic() - began > _MOST_SECONDS:
                break
            found[name] = self.error(network, {name: g}, loss, moves=_FEW_MOVES)
        return found

    def judged(self, network: nn.Module, loss: Loss | None = None) -> str | None:
        """Returns what is wrong with the gradient of a network, in words; None if it is right.

        Raises:
            Unanswerable: all of it is wrong in any case.
        """
        return self.judged_gradient(network, self.run(network, loss).gradient, loss)

    def judged_gradient(
        self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None = None
    ) -> str | None:
        """Returns the same of a gradient that is there; what is wrong in any case is left out."""
        wrong = self._wrong(network, gradient, loss)
        if wrong is None or not self.known:
            return wrong
        gradient = {name: g for name, g in gradient.items() if name not in self.known}
        if not gradient:
            raise Unanswerable("the gradient is wrong in any case")
        return self._wrong(network, gradient, loss)

    def plainly_wrong(self, network: nn.Module, gradient: Mapping[str, Tensor]) -> str | None:
        """Returns what is wrong with the gradient of the network as it is, nothing left out."""
        return self._wrong(network, gradient, None)

    def _wrong(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None) -> str | None:
        """Judges what is inside the blocks and what is not each by its own norm: one must not hide the other."""
        size, floor = norm_of(gradient), self._floor(network, gradient, loss)
        inside = [name for name in gradient if self.is_inside(name)]
        groups = [inside, [name for name in gradient if name not in inside]] if inside else [list(gradient)]
        for names in filter(None, groups):
            part = {name: gradient[name] for name in names}
            error, own = self.error(network, part, loss), norm_of(part)
            if error <= max(floor, _NOISE * size if own > 0 else 0.0) or error <= WRONG * own:
                continue
            if size == 0:
                return "there is no gradient at all"
            words = (
                "of the gradient"
                if len(part) == len(gradient)
                else "inside the blocks"
                if names is inside
                else "outside them"
            )
            share_of = error / own if own > 0 else math.inf
            return f"{share(share_of)} {words} is wrong{self._where(network, part, loss, error)}"
        return None

    def is_inside(self, name: str) -> bool:
        """Tells whether a parameter, by its name, is one of a module inside the blocks."""
        owner = name.removeprefix("model.").rpartition(".")[0]
        return owner in self._inside

    @functools.cached_property
    def _inside(self) -> frozenset[str]:
        return frozenset(self.leaves.inside)

    def _floor(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None) -> float:
        """Returns what differences of the loss are off by its own rounding."""
        weights = {n: p for n, p in network.named_parameters() if n in gradient}
        distance = _MOVES[1] * max(norm_of(weights), 1e-3) / math.sqrt(sum(w.numel() for w in weights.values()))
        value = self._step(loss).value(network, self.inputs, self.targets)
        return 50 * torch.finfo(torch.float64).eps * max(abs(value), 1e-3) / distance

    def _where(self, network: nn.Module, gradient: Mapping[str, Tensor], loss: Loss | None, error: float) -> str:
        errors = self.errors(network, gradient, loss)
        without = [n for n, e in errors.items() if norm_of({n: gradient[n]}) == 0 and e > 1e-3 * error]
        if without:
            return f"; {_listed(without)} get none"
        return f", most in {_listed([max(errors, key=lambda name: errors[name])])}" if errors else ""

    @functools.cached_property
    def leaves(self) -> Leaves:
        """Where the blocks are, as far as that is seen."""
        return leaves_of(self.fresh(), self.loss_of)

    def middle(self) -> str:
        """Returns the name of a module inside the blocks.

        Raises:
            Unanswerable: none of them returns one tensor.
        """
        name = self.leaves.middle()
        if name is None:
            raise Unanswerable("no module inside returns one tensor")
        return name


@torch.no_grad()
def _move_off_the_kinks(model: nn.Module) -> None:
    """Move weights a little, so that nothing is exactly at a kink, and no part's gradient exactly zero, as of zeros that networks
    begin with."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point() and parameter.numel():
            scale = 0.01 * max(parameter.square().mean().sqrt().item(), 0.05)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_((scale * noise).to(parameter))


@contextmanager
def repeatable_seeds() -> Iterator[None]:
    """Inside, `torch.seed`, by which some networks ask the system for a seed, draws it from PyTorch's generator: a loss is then a
    function of the weights."""
    plain = torch.seed, torch.random.seed

    def seed() -> int:
        drawn = int(torch.randint(2**31, (1,)))
        torch.manual_seed(drawn)
        return drawn

    torch.seed = torch.random.seed = seed
    try:
        yield
    finally:
        torch.seed, torch.random.seed = plain


def share(error: float) -> str:
    """Returns a share of a norm as a person reads it."""
    if not math.isfinite(error):
        return "all"
    return f"{error:.0%}" if error >= 0.1 else f"{error:.1%}" if error >= 1e-3 else f"{error:.0e}"


def _listed(names: list[str]) -> str:
    shown = [name.removeprefix("model.") for name in names[:_NAMED]]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shown) + more
