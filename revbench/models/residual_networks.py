"""ResNet and RevNet (Gomez et al. 2017, section 3), built from one residual function.

A ResNet's unit maps one tensor to one; a RevNet's maps two halves to two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revbench.backprop import ReversibleBlock, coupling_of, plain_container
from revbench.choices import Nonreversible, Strategy
from revbench.models.network import Network, State
from revbench.models.residual import ResidualFunction, batch_norm, convolution, initialise, shortcut
from revbench.paper.residual import ResidualArchitecture


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


def _stem(a: ResidualArchitecture) -> nn.Sequential:
    imagenet = a.stem == "imagenet"
    layers: list[nn.Module] = [
        convolution(3, a.stem_channels, 7 if imagenet else 3, stride=2 if imagenet else 1),
        batch_norm(a.stem_channels),
        nn.ReLU(inplace=True),
    ]
    if imagenet:
        layers.append(nn.MaxPool2d(3, stride=2, padding=1))
    return nn.Sequential(*layers)


def _head(a: ResidualArchitecture) -> nn.Sequential:
    width = a.widths[-1]
    return nn.Sequential(
        batch_norm(width), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, a.num_classes)
    )


def _unit(a: ResidualArchitecture, inputs: int, outputs: int, *, stride: int, first: bool) -> nn.Module:
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
        return ReversibleBlock(f, g, coupling=coupling_of(a.coupling))
    return NonreversibleUnit(f, g, skip(), skip())


def _trunk(a: ResidualArchitecture) -> nn.ModuleList:
    units = nn.ModuleList()
    channels = a.stem_channels
    for group, (count, width) in enumerate(zip(a.units, a.widths, strict=True)):
        for i in range(count):
            stride = 2 if group > 0 and i == 0 else 1
            units.append(_unit(a, channels, width, stride=stride, first=group == 0 and i == 0))
            channels = width
    return units


class ResidualNetwork(Network[ResidualArchitecture]):
    """A ResNet or a RevNet; a RevNet's halves are those of the channels.

    Shape: images ``(N, 3, H, W)`` to logits ``(N, num_classes)``.

    Args:
        architecture: what to build.
        strategy, nonreversible: see `Network`.

    Raises:
        UserError: a strategy that the network does not support.
    """

    def __init__(
        self, architecture: ResidualArchitecture, strategy: Strategy, nonreversible: Nonreversible = "kept"
    ) -> None:
        super().__init__(
            architecture, strategy, nonreversible, _stem(architecture), _trunk(architecture), _head(architecture)
        )
        initialise(self)

    def split(self, x: Tensor) -> State:
        """Returns the halves ``(N, C / 2, H, W)`` of what leaves the stem; of a ResNet all of it."""
        return x.chunk(2, 1) if self.architecture.reversible else (x,)

    def join(self, state: State) -> Tensor:
        """Returns ``(N, C, H, W)``."""
        return torch.cat(state, 1) if len(state) > 1 else state[0]
