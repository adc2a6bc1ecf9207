"""Checks of random numbers: the network's own dropouts, or such as are planted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.backprop.random_states import differ, random_states
from revbench.checkup.declared import Answer
from revbench.checkup.dropouts import dropping
from revbench.checkup.of_gradients import judgement
from revbench.checkup.scenarios import Plainly
from revbench.checkup.subject import Subject

_DROPOUT = 0.5


def dropout(subject: Subject) -> Answer:
    """With its own dropouts; else with such as are planted where backward runs a module again, whose masks are compared."""
    model, planted = _with_dropout(subject)
    wrong = subject.judged(Plainly(model))
    if planted.own:
        return judgement(wrong, f"it is right, with {planted}")
    planted.masks.clear()
    loss = subject.loss_of(model)
    forward = {place: set(masks) for place, masks in planted.masks.items()}
    loss.backward()
    others = sum(mask not in forward[place] for place, masks in planted.masks.items() for mask in masks)
    if others:
        return (
            "failed",
            f"{others} masks in backward are not those of forward: {wrong or 'the gradient does not show it'}",
        )
    if wrong is None:
        return "passed", f"the masks in backward are those of forward, with {planted}"
    return "can't tell", f"the masks in backward are those of forward, with {planted}; {wrong}"


def generator(subject: Subject) -> Answer:
    """With dropout: the states after forward are the states after backward."""
    model, where = _with_dropout(subject)
    loss = subject.loss_of(model)
    before = random_states(loss.device)
    loss.backward()
    if differ(before, random_states(loss.device)):
        return "failed", f"backward moves it, with {where}"
    return "passed", f"as it was after forward, with {where}"


class Planted:
    """The dropouts of a copy.

    Args:
        own: how many are the network's own.
        planted: behind how many modules others were put.

    Attributes:
        masks: by the place of each that was planted, a number for each mask that it drew.
    """

    def __init__(self, own: int, planted: int = 0) -> None:
        self.own, self._planted = own, planted
        self.masks: dict[int, list[float]] = {}

    def __str__(self) -> str:
        return f"its own {self.own} dropouts" if self.own else f"one planted behind {self._planted} modules"

    def drop(self, place: int, plain: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Returns what a module returns, with half of it dropped."""
        value = plain(*args, **kwargs)
        mask = F.dropout(torch.ones_like(value), _DROPOUT)
        self.masks.setdefault(place, []).append(
            float((mask.detach().flatten() * torch.arange(1, mask.numel() + 1).to(mask).sqrt()).sum())
        )
        return value * mask


def _with_dropout(subject: Subject) -> tuple[nn.Module, Planted]:
    """Returns a copy that draws random numbers inside the blocks, and what draws them."""
    tried = subject.fresh(dropout=True)
    own = dropping(tried, lambda: subject.loss_of(tried))
    inside = set(subject.leaves.inside)  # empty if it is not known where the blocks are
    model = subject.fresh(dropout=True)
    if any(not inside or _is_inside(tried.get_submodule(name), name, inside) for name in own):
        return model, Planted(len(own))
    # Behind every module with a matrix: what others would call their layers.
    modules = [model.get_submodule(name) for name in subject.leaves.inside]
    modules = [m for m in modules if any(p.dim() >= 2 for p in m.parameters())]
    modules = modules or [model.get_submodule(subject.middle())]
    planted = Planted(0, len(modules))
    for place, module in enumerate(modules):
        module.forward = functools.partial(planted.drop, place, module.forward)
    return model, planted


def _is_inside(module: nn.Module, name: str, inside: Set[str]) -> bool:
    """Tells whether a module, by its name, and all that it calls are inside the blocks."""
    leaves = [f"{name}.{n}".strip(".") for n, m in module.named_modules() if not any(True for _ in m.children())]
    return all(leaf.rstrip(".") in inside for leaf in leaves)
