"""Errors of the whole gradient and of its parts: blocks and parameter tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from revbench.numerics.activations import ActivationError
from revbench.numerics.angles import angle_degrees, relative_error
from revbench.numerics.passes import Pass


@dataclass(frozen=True, kw_only=True)
class PartError:
    """What was found of one block or of one parameter tensor, in one draw.

    Attributes:
        share: of the reference gradient's norm in that of the whole.
        relative_error, stored_relative_error: of its gradient, of the strategy and of `stored` in the same arithmetic;
            NaN if the reference is zero.
        angle_degrees: of its gradient; NaN likewise.
        smooth_relative_error, smooth_stored_relative_error: with frozen switches; None if that was not possible.
        flips, stored_flips: switches of the block that went another way than the reference's; None of a tensor.
        activation: error of the reconstructed activations that enter the block; None where there are none.
    """

    share: float
    relative_error: float
    stored_relative_error: float
    angle_degrees: float
    smooth_relative_error: float | None = None
    smooth_stored_relative_error: float | None = None
    flips: int | None = None
    stored_flips: int | None = None
    activation: ActivationError | None = None


class ErrorTable:
    """Errors of parts of the gradient, of all passes of one draw."""

    def __init__(
        self,
        reference: Pass,
        stored: Pass,
        own: Pass,
        smooth_stored: Pass | None,
        smooth: Pass | None,
        *,
        followed: bool,
    ) -> None:
        self._truth = reference.gradient
        self._norm = torch.linalg.vector_norm(self._vector(self._truth, list(self._truth))).item()
        self._own, self._stored, self._smooth, self._smooth_stored = own, stored, smooth, smooth_stored
        self._flips: dict[str, int] | None = None
        self._stored_flips: dict[str, int] | None = None
        self.switch_modules: list[str] = []
        if followed and reference.switches is not None and own.switches is not None and stored.switches is not None:
            self._flips = own.switches.flips(reference.switches)
            self._stored_flips = stored.switches.flips(reference.switches)
            self.switch_modules = list(self._flips)

    def of(
        self, names: Sequence[str], activation: ActivationError | None = None, *, at: Sequence[str] | None = None
    ) -> PartError:
        """Returns what was found of these parameters (none: NaN), and of the switches `at` these modules."""
        truth = self._vector(self._truth, names)

        def error(found: Pass) -> float:
            return relative_error(self._vector(found.gradient, names), truth)

        def count(flips: Mapping[str, int] | None) -> int | None:
            return None if flips is None or at is None else sum(flips[place] for place in at)

        return PartError(
            share=torch.linalg.vector_norm(truth).item() / self._norm if self._norm else math.nan,
            relative_error=error(self._own),
            stored_relative_error=error(self._stored),
            angle_degrees=angle_degrees(self._vector(self._own.gradient, names), truth),
            smooth_relative_error=error(self._smooth) if self._smooth else None,
            smooth_stored_relative_error=error(self._smooth_stored) if self._smooth_stored else None,
            flips=count(self._flips),
            stored_flips=count(self._stored_flips),
            activation=activation,
        )

    @staticmethod
    def _vector(gradient: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
        parts = [gradient[name].double().flatten() for name in names] or [torch.zeros(1)]
        return torch.cat([part.to(parts[0].device) for part in parts])

    def stored_angle_degrees(self) -> float:
        """Returns the angle of the whole gradient."""
        names = list(self._truth)
        return angle_degrees(self._vector(self._stored.gradient, names), self._vector(self._truth, names))

    @property
    def parameters(self) -> Sequence[str]:
        """The names of all that have a gradient."""
        return list(self._truth)


def block_names(model: nn.Module) -> Callable[[str], str]:
    """Returns what leads from the name of a module or parameter to that of its block: the outermost member of a `ModuleList`,
    else the
    outermost module (``stem``).
    """
    lists = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}

    def block_of(name: str) -> str:
        parts = name.split(".")
        for i in range(1, len(parts)):
            if ".".join(parts[:i]) in lists:
                return ".".join(parts[: i + 1])
        return parts[0]

    return block_of


def blocks(model: nn.Module, errors: ErrorTable, activations: Mapping[str, ActivationError]) -> dict[str, PartError]:
    """Returns what was found of each block, in the network's order: its parameters, its switches, its activations."""
    block_of = block_names(model)
    parameters: dict[str, list[str]] = {}
    for name in errors.parameters:
        parameters.setdefault(block_of(name), []).append(name)
    places: dict[str, list[str]] = {}
    for place in errors.switch_modules:
        places.setdefault(block_of(place), []).append(place)
    order = dict.fromkeys((*parameters, *places, *activations))
    return {
        block: errors.of(parameters.get(block, []), activations.get(block), at=places.get(block, [])) for block in order
    }
