"""The named architectures of Gomez et al. 2017, as data; this module imports no torch.

Table 2 of the paper gives the CIFAR networks and ResNet-101/RevNet-104. ResNet-50, ResNet-152 and
RevNet-56 are configurations of the authors' code (github.com/renmengye/revnet-public).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from revbench.choices import OwnStrategy
from revbench.errors import UserError, unknown

Family = Literal["resnet", "revnet"]
Stem = Literal["cifar", "imagenet"]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """All that determines a ResNet or a RevNet.

    Attributes:
        name: the catalogue's name, e.g. ``revnet-38``.
        pair: the name of the network that it is compared with.
        family: ``resnet`` (one stream) or ``revnet`` (two streams of half the channels each).
        stem: ``cifar`` (3x3 convolution) or ``imagenet`` (7x7 stride 2, then 3x3 max pooling).
        bottleneck: three convolutions a residual function (1x1, 3x3, 1x1) instead of two (3x3).
        units: residual units in each group.
        stem_channels: channels that leave the stem, both streams together.
        channels: channels of each group, both streams together; a bottleneck group is 4 times as wide.
        num_classes: outputs of the linear layer.
        image_size: height and width in pixels that the network is meant for.
    """

    name: str
    pair: str
    family: Family
    stem: Stem
    bottleneck: bool
    units: tuple[int, ...]
    stem_channels: int
    channels: tuple[int, ...]
    num_classes: int
    image_size: int

    @property
    def reversible(self) -> bool:
        """Whether it has two streams, and so blocks that can be inverted."""
        return self.family == "revnet"

    @property
    def streams(self) -> int:
        """Into how many parts the channels are split."""
        return 2 if self.reversible else 1

    @property
    def strategies(self) -> tuple[OwnStrategy, ...]:
        """Those of our own strategies that it supports, the best of its kind last."""
        common: tuple[OwnStrategy, ...] = ("stored", "checkpointed", "recursive")
        return (*common, "reconstructed") if self.reversible else common

    @property
    def default_strategy(self) -> OwnStrategy:
        """``reconstructed`` where that is possible, else ``stored``."""
        return "reconstructed" if self.reversible else "stored"

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels that leave each group, both streams together."""
        return tuple(4 * c if self.bottleneck else c for c in self.channels)

    @property
    def smallest_image(self) -> int:
        """The smallest image, in pixels, that leaves at least one pixel after the last group."""
        return (4 if self.stem == "imagenet" else 1) * int(2 ** (len(self.units) - 1))


def _cifar(
    name: str, pair: str, family: Family, n: int, channels: tuple[int, ...], *, bottleneck: bool = False
) -> Architecture:
    return Architecture(
        name=name, pair=pair, family=family, stem="cifar", bottleneck=bottleneck, units=(n, n, n),
        stem_channels=16 if family == "resnet" else 32, channels=channels, num_classes=10, image_size=32,
    )  # fmt: skip


def _imagenet(name: str, pair: str, family: Family, units: tuple[int, ...]) -> Architecture:
    resnet = family == "resnet"
    return Architecture(
        name=name, pair=pair, family=family, stem="imagenet", bottleneck=True, units=units,
        stem_channels=64 if resnet else 128,
        channels=(64, 128, 256, 512) if resnet else (128, 256, 512, 832),
        num_classes=1000, image_size=224,
    )  # fmt: skip


CATALOGUE: Mapping[str, Architecture] = {
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


def architecture(name: str, **overrides: Any) -> Architecture:
    """Returns the named architecture with fields replaced, checked.

    Args:
        name: a key of `CATALOGUE`.
        overrides: fields of `Architecture`: ``units``, ``channels``, ``stem_channels``, ``bottleneck``,
            ``num_classes``, ``image_size``.

    Raises:
        UserError: an unknown name or field, or a value that no network can have.
    """
    if name not in CATALOGUE:
        raise unknown("model", name, CATALOGUE)
    allowed = {"units", "channels", "stem_channels", "bottleneck", "num_classes", "image_size"}
    for field in overrides:
        if field not in allowed:
            raise unknown(f"override of {name}", field, allowed)
    for field in ("units", "channels"):
        if field in overrides:
            value = overrides[field]
            if not isinstance(value, (tuple, list)):
                raise UserError(f"{name}: {field}={value!r} must be a list of integers, one a group")
            overrides[field] = tuple(value)
    found = dataclasses.replace(CATALOGUE[name], **overrides)
    _check(found)
    return found


def _check(a: Architecture) -> None:
    def positive(field: str, value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"{a.name}: {field}={value!r} must be an integer of at least 1")

    if not isinstance(a.bottleneck, bool):
        raise UserError(f"{a.name}: bottleneck={a.bottleneck!r} must be true or false")
    for field in ("stem_channels", "num_classes", "image_size"):
        positive(field, getattr(a, field))
    for field in ("units", "channels"):
        if not getattr(a, field):
            raise UserError(f"{a.name}: {field} must name at least one group")
        for value in getattr(a, field):
            positive(field, value)
    if len(a.units) != len(a.channels):
        raise UserError(
            f"{a.name}: units has {len(a.units)} groups and channels has {len(a.channels)}; give both the same"
        )
    streams = a.streams
    for field, values in (("stem_channels", (a.stem_channels,)), ("channels", a.channels)):
        for value in values:
            if value % streams:
                raise UserError(f"{a.name}: {field}={value} must be even, to be split in two halves")
    if not a.bottleneck:
        widths = (a.stem_channels, *a.channels)
        for before, after in itertools.pairwise(widths):
            if after < before or (after - before) % (2 * streams):
                raise UserError(
                    f"{a.name}: channels {before} -> {after}: a basic unit pads its shortcut with zeros, half on"
                    f" each side, so channels must grow by a multiple of {2 * streams} (or stay)"
                )
    if a.image_size < a.smallest_image:
        raise UserError(
            f"{a.name}: image_size={a.image_size} is too small; its strides need at least {a.smallest_image}"
        )
