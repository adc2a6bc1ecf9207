"""What every network of the catalogue says of itself, and what is checked of all; this module imports no torch."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from revbench.choices import OwnStrategy
from revbench.errors import UserError
from revbench.paper.couplings import parse_coupling

Family = Literal["resnet", "revnet", "gpt", "revgpt", "vit", "revvit"]
Item = Literal["image", "token"]

# How the families write themselves.
_TITLES: Mapping[Family, str] = {
    "resnet": "ResNet", "revnet": "RevNet", "gpt": "GPT", "revgpt": "RevGPT", "vit": "ViT", "revvit": "RevViT",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Architecture(abc.ABC):
    """All that determines a network.

    Attributes:
        name: the catalogue's name, e.g. ``revnet-38``.
        pair: the name of the network that it is compared with.
        family: one of two that are a pair; the one that begins with ``rev`` has two streams, and so blocks that can be inverted.
        coupling: how the functions and streams of a reversible network are put together (`revbench.paper.couplings`).
    """

    OVERRIDES: ClassVar[Sequence[str]] = ()  # fields that may be replaced

    name: str
    pair: str
    family: Family
    coupling: str = "additive"

    @property
    def reversible(self) -> bool:
        """Whether it has two streams, and so blocks that can be inverted."""
        return self.family.startswith("rev")

    @property
    def title(self) -> str:
        """The name as people write it: ``RevNet-38``."""
        return f"{self.kind}-{self.name.partition('-')[2].upper()}"

    @property
    def kind(self) -> str:
        """The family as people write it: ``RevNet``."""
        return _TITLES[self.family]

    @property
    def item(self) -> Item:
        """What a step's work is counted in."""
        return "image"

    @property
    def items(self) -> int:
        """How many of them one element of a batch has."""
        return 1

    @property
    def recipe(self) -> Literal["cifar", "imagenet", "text"]:
        """The name of the recipe by which it is trained."""
        return "cifar"

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
    @abc.abstractmethod
    def depth(self) -> Sequence[int]:
        """How many units it has, group by group."""

    @property
    @abc.abstractmethod
    def layers(self) -> str:
        """How deep it is, in words."""

    @abc.abstractmethod
    def deepened(self, units: Sequence[int]) -> Architecture:
        """Returns the same network with these numbers of units, group by group."""

    @abc.abstractmethod
    def grown(self, value: int) -> Sequence[int]:
        """Returns the numbers of units, group by group, of the network of this family that a number stands for."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise a `UserError` if no network can be so."""

    def check_coupling(self) -> None:
        """Raise a `UserError` unless its functions can be put together by its coupling."""
        found = parse_coupling(self.coupling)
        if found.name != "additive" and not self.reversible:
            raise UserError(
                f"coupling={self.coupling} is of reversible networks; the pair of {self.name} is {self.pair}"
            )
        if found.name == "affine":
            raise UserError(
                f"coupling={self.coupling} needs functions that return scale and shift, and those of {self.name} return one"
                " stream; revbench.peers:chain(coupling=affine) has them"
            )

    def check_positive(self, *fields: str) -> None:
        """Raise a `UserError` unless these fields are integers of at least 1."""
        for field in fields:
            value = getattr(self, field)
            for one in value if isinstance(value, tuple) else (value,):
                if not isinstance(one, int) or isinstance(one, bool) or one < 1:
                    raise UserError(f"{self.name}: {field}={one!r} must be an integer of at least 1")
