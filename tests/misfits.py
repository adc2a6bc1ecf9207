"""Networks that can't be called with what they are given, as people bring them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from revbench import reversible

Brought = tuple[nn.Module, Callable[..., Any], Callable[..., Tensor]]


class Tagger(nn.Module):
    """A class for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 8), nn.Linear(8, 10)
        self.trunk = reversible([(nn.Linear(4, 4), nn.Linear(4, 4))], split_dim=-1)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(self.embedding(ids)))
        return logits.flatten(0, 1)


class Masked(Tagger):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(ids * mask)


class Scaled(Tagger):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(10, device="meta")

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids) * self.scale


def tokens(count: int, generator: torch.Generator, most: int = 50) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, most, (count, 7), generator=generator)
    ids[0, 0] = most - 1
    return ids, torch.randint(0, 10, (count * 7,), generator=generator)


def named(count: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
    ids, targets = tokens(count, generator)
    return {"input_ids": ids}, targets


class Hidden(nn.Linear):
    """Says nothing of itself."""

    def __getattribute__(self, name: str) -> Any:
        if name == "in_features":
            raise KeyError(name)
        return super().__getattribute__(name)


def hidden() -> nn.Module:
    made = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    made[1].__class__ = Hidden
    return made


def no_batches() -> nn.Module:
    return Tagger()


def two_inputs() -> Brought:
    return Masked(), tokens, cross_entropy


def another_name() -> Brought:
    return Tagger(), named, cross_entropy


def a_token_too_many() -> Brought:
    return Tagger(), lambda count, generator: tokens(count, generator, 60), cross_entropy


def elsewhere() -> Brought:
    return Scaled(), tokens, cross_entropy


def without_values() -> Brought:
    return Tagger().to("meta"), tokens, cross_entropy


def other_targets_of_a_module() -> Brought:
    network, make_batch, _ = other_targets()
    return network, make_batch, nn.CrossEntropyLoss(weight=torch.ones(10))


def weighted() -> Brought:
    return Tagger(), tokens, nn.CrossEntropyLoss(weight=torch.full((10,), 0.5))


def other_targets() -> Brought:
    return Tagger(), lambda count, generator: (tokens(count, generator)[0], torch.zeros(3)), cross_entropy
