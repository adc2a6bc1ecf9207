"""The residual networks of Gomez et al. 2017, as data; this module imports no torch.

Table 2 of the paper gives the CIFAR networks and ResNet-101/RevNet-104. ResNet-50, ResNet-152 and
RevNet-56 are configurations of the authors' code (github.com/renmengye/revnet-public).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from revbench.errors import UserError
from revbench.paper.architectures import Architecture, Family

Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class ResidualArchitecture(Architecture):
    """All that determines a ResNet or a RevNet.

    Attributes:
        stem: ``cifar`` (3x3 convolution) or ``imagenet`` (7x7 stride 2, then 3x3 max pooling).
        bottleneck: three convolutions a residual function (1x1, 3x3, 1x1) instead of two (3x3).
        units: residual units in each group.
        stem_channels: channels that leave the stem, all streams together.
        channels: channels of each group, all streams together; a bottleneck group is 4 times as wide.
        num_classes: outputs of the linear layer.
        image_size: height and width in pixels that the network is meant for.
    """

    OVERRIDES = ("units", "channels", "stem_channels", "bottleneck", "num_classes", "image_size", "coupling")

    stem: Stem
    bottleneck: bool
    units: tuple[int, ...]
    stem_channels: int
    channels: tuple[int, ...]
    num_classes: int
    image_size: int

    @property
    def streams(self) -> int:
        """Into how many parts the channels are split."""
        return 2 if self.reversible else 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that leave each group, all streams together."""
        return tuple(4 * c if self.bottleneck else c for c in self.channels)

    @property
    def smallest_image(self) -> int:
        """The smallest image, in pixels, that leaves at least one pixel after the last group."""
        return (4 if self.stem == "imagenet" else 1) * int(2 ** (len(self.units) - 1))

    @property
    def recipe(self) -> Stem:
        """That of the paper for the images that the stem is made for."""
        return self.stem

    @property
    def depth(self) -> Sequence[int]:
        """Units of each group."""
        return self.units

    @property
    def layers(self) -> str:
        """Layers with weights, as the networks' names count them: 104 for RevNet-104; and the units."""
        count = sum(self.units) * self.streams * (3 if self.bottleneck else 2) + 2
        return f"{count} layers, units {'-'.join(map(str, self.units))}"

    def deepened(self, units: Sequence[int]) -> ResidualArchitecture:
        """Returns the same network with these units in each group."""
        return dataclasses.replace(self, units=tuple(units))

    def grown(self, value: int) -> Sequence[int]:
        """Returns so many units in each group; of those for ImageNet in the third."""
        return [value for _ in self.units] if self.stem == "cifar" else [*self.units[:2], value, *self.units[3:]]

    def check(self) -> None:
        """Raise a `UserError` if no network can be so."""
        self.check_coupling()
        if not isinstance(self.bottleneck, bool):
            raise UserError(f"{self.name}: bottleneck={self.bottleneck!r} must be true or false")
        for field in ("units", "channels"):
            if not isinstance(getattr(self, field), tuple):
                raise UserError(
                    f"{self.name}: {field}={getattr(self, field)!r} must be a list of integers, one a group"
                )
            if not getattr(self, field):
                raise UserError(f"{self.name}: {field} must name at least one group")
        self.check_positive("stem_channels", "num_classes", "image_size", "units", "channels")
        if len(self.units) != len(self.channels):
            raise UserError(
                f"{self.name}: units has {len(self.units)} groups and channels has {len(self.channels)}; give both the same"
            )
        streams = self.streams
        for field, values in (("stem_channels", (self.stem_channels,)), ("channels", self.channels)):
            for value in values:
                if value % streams:
                    raise UserError(f"{self.name}: {field}={value} must be even, to be split in two halves")
        if not self.bottleneck:
            widths = (self.stem_channels, *self.channels)
            for before, after in itertools.pairwise(widths):
                if after < before or (after - before) % (2 * streams):
                    raise UserError(
                        f"{self.name}: channels {before} -> {after}: a basic unit pads its shortcut with zeros, half on"
                        f" each side, so channels must grow by a multiple of {2 * streams} (or stay)"
                    )
        if self.image_size < self.smallest_image:
            raise UserError(
                f"{self.name}: image_size={self.image_size} is too small; its strides need at least {self.smallest_image}"
            )


def _cifar(
    name: str, pair: str, family: Family, n: int, channels: tuple[int, ...], *, bottleneck: bool = False
) -> ResidualArchitecture:
    return ResidualArchitecture(
        name=name, pair=pair, family=family, stem="cifar", bottleneck=bottleneck, units=(n, n, n),
        stem_channels=16 if family == "resnet" else 32, channels=channels, num_classes=10, image_size=32,
    )  # fmt: skip


def _imagenet(name: str, pair: str, family: Family, units: tuple[int, ...]) -> ResidualArchitecture:
    resnet = family == "resnet"
    return ResidualArchitecture(
        name=name, pair=pair, family=family, stem="imagenet", bottleneck=True, units=units,
        stem_channels=64 if resnet else 128,
        channels=(64, 128, 256, 512) if resnet else (128, 256, 512, 832),
        num_classes=1000, image_size=224,
    )  # fmt: skip


RESIDUAL: Mapping[str, ResidualArchitecture] = {
    a.name: a
    for a in (
        _cifar("resnet-32", "revnet-38", "resnet", 5, (16, 32, 64)),
        _cifar("revnet-38", "resnet-32", "revnet", 3, (32, 64, 112)),
        _cifar("resnet-110", "revnet-110", "resnet", 18, (16, 32, 64)),
        _cifar("revnet-110", "resnet-110", "revnet", 9, (32, 64, 128)),
        _cifar("resnet-164", "revnet-164", "resnet", 18, (16, 32, 64), bottleneck=True),
        _cifar("revnet-164", "resnet-164", "revnet", 9, (32, 64, 128), bottleneck=True),
        _imagenet("resnet-50", "revnet-56", "resnet", (3, 4, 6, 3)),
        _imagenet("revnet-56", "resnet-50", "revnet", (2, 2, 3, 2)),
        _imagenet("resnet-101", "revnet-104", "resnet", (3, 4, 23, 3)),
        _imagenet("revnet-104", "resnet-101", "revnet", (2, 2, 11, 2)),
        _imagenet("resnet-152", "revnet-104", "resnet", (3, 8, 36, 3)),
    )
}
