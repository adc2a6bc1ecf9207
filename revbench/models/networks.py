"""ResNet and RevNet (Gomez et al. 2017, section 3), built from one residual function.

Both are stem, trunk (a sequence of units), head. A ResNet's unit maps one tensor to one; a RevNet's maps
two halves to two. The trunk is what a strategy back-propagates; stem and head follow ``nonreversible``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop import ReversibleBlock, StrategyModule, pieces_of, plain_container, propagate, segment
from revbench.choices import Nonreversible, Strategy
from revbench.models.residual import ResidualFunction, batch_norm, convolution, initialise, shortcut
from revbench.paper.catalogue import Architecture, architecture


@plain_container
class ResidualUnit(nn.Module):
    """``y = S(x) + F(x)``: the unit of a ResNet. ``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``."""

    def __init__(self, f: ResidualFunction, s: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.s = s

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``S(x) + F(x)``."""
        out: Tensor = self.s(x) + self.f(x)
        return out


@plain_container
class NonreversibleUnit(nn.Module):
    """``y1 = S1(x1) + F(x2)``, ``y2 = S2(x2) + G(y1)``: the unit of a RevNet that changes the shape.

    F takes the stride; each half has its own shortcut, so the halves can't be had back.
    """

    def __init__(self, f: ResidualFunction, g: ResidualFunction, s1: nn.Module, s2: nn.Module) -> None:
        super().__init__()
        self.f, self.g, self.s1, self.s2 = f, g, s1, s2

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Returns ``(y1, y2)``, in the new shape."""
        y1 = self.s1(x1) + self.f(x2)
        return y1, self.s2(x2) + self.g(y1)


def _stem(a: Architecture) -> nn.Sequential:
    imagenet = a.stem == "imagenet"
    layers: list[nn.Module] = [
        convolution(3, a.stem_channels, 7 if imagenet else 3, stride=2 if imagenet else 1),
        batch_norm(a.stem_channels),
        nn.ReLU(inplace=True),
    ]
    if imagenet:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers)


def _head(a: Architecture) -> nn.Sequential:
    width = a.widths[-1]
    return nn.Sequential(
        batch_norm(width), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, a.num_classes)
    )


def _unit(a: Architecture, inputs: int, outputs: int, *, stride: int, first: bool) -> nn.Module:
    """Builds one unit; `inputs` and `outputs` count the channels of all streams."""
    inputs, outputs = inputs // a.streams, outputs // a.streams
    f = ResidualFunction(inputs, outputs, stride=stride, bottleneck=a.bottleneck, preactivate=not first)

    def skip() -> nn.Module:
        return shortcut(inputs, outputs, stride=stride, bottleneck=a.bottleneck)

    if not a.reversible:
        return ResidualUnit(f, skip())
    g = ResidualFunction(outputs, outputs, bottleneck=a.bottleneck)
    if stride == 1 and inputs == outputs:
        # The first unit of a basic RevNet changes no shape, so it is reversible and treated as such.
        return ReversibleBlock(f, g)
    return NonreversibleUnit(f, g, skip(), skip())


def _trunk(a: Architecture) -> nn.ModuleList:
    units = nn.ModuleList()
    channels = a.stem_channels
    for group, (count, width) in enumerate(zip(a.units, a.widths, strict=True)):
        for i in range(count):
            stride = 2 if group > 0 and i == 0 else 1
            units.append(_unit(a, channels, width, stride=stride, first=group == 0 and i == 0))
            channels = width
    return units


class ResidualNetwork(StrategyModule):
    """A ResNet or a RevNet with settable strategy.

    Shape: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    Args:
        architecture: what to build.
        strategy: of the backward pass; ``reconstructed`` needs reversible blocks, so a RevNet.
        nonreversible: whether stem, head and the units that change the shape keep their activations or
            are recomputed. Under ``checkpointed`` and ``recursive`` the trunk is recomputed anyway.

    Raises:
        UserError: a strategy that the network does not support.
    """

    def __init__(self, architecture: Architecture, strategy: Strategy, nonreversible: Nonreversible = "kept") -> None:
        self.name = architecture.name
        super().__init__(architecture.strategies, strategy, nonreversible)
        self.architecture = architecture
        self.stem = _stem(architecture)
        self.trunk = _trunk(architecture)
        self.head = _head(architecture)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits ``(N, num_classes)`` of images ``(N, 3, H, W)``."""
        x = self._recomputed_or_kept(self.stem, images)
        state = x.chunk(2, 1) if self.architecture.reversible else (x,)
        state = propagate(
            list(self.trunk), state, owner=self, way=self.backpropagation, witness=self._next_witness(),
            tripwire=self.tripwire,
        )  # fmt: skip
        return self._recomputed_or_kept(self.head, torch.cat(state, 1) if len(state) > 1 else state[0])

    def pieces(self) -> list[nn.Module]:
        """Stem, F and G of each reversible block, the other units, head."""
        return pieces_of([self.stem, *self.trunk, self.head])

    def _recomputed_or_kept(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.nonreversible == "recomputed":
            (out,) = segment([module], (x,), tripwire=self.tripwire)
            return out
        kept: Tensor = module(x)
        return kept


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    strategy: Strategy | None = None,
    nonreversible: Nonreversible = "kept",
    **overrides: Any,
) -> ResidualNetwork:
    """Build a network of the catalogue, with weights from torch's global generator.

    Args:
        name: a key of `CATALOGUE`, e.g. ``revnet-38``.
        num_classes: outputs; the catalogue's own (10, ImageNet 1000) if not given.
        strategy: by default ``reconstructed`` for a RevNet and ``stored`` for a ResNet.
        nonreversible: ``kept`` or ``recomputed``; see `ResidualNetwork`.
        overrides: ``units``, ``channels``, ``stem_channels``, ``bottleneck``, ``image_size``.

    Returns:
        A module from images ``(N, 3, H, W)`` to logits ``(N, num_classes)``, float32, in training mode.

    Raises:
        UserError: an unknown name, a value that no network can have, a strategy that is not supported.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    found = architecture(name, **overrides)
    return ResidualNetwork(found, strategy or found.default_strategy, nonreversible)
