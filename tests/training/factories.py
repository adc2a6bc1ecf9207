"""Networks whose data nobody else knows: they bring batches of their own."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import revbench


def _half(width: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())


class Tagger(nn.Module):
    """Called by name, as networks of `transformers`: tokens and a mask to a class for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 16)
        self.chain = revbench.reversible([(_half(8), _half(8)) for _ in range(2)], split_dim=2)
        self.head = nn.Linear(16, 7)

    def forward(self, ids: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        assert ids is not None
        assert mask is not None
        out: Tensor = self.head(self.chain(self.embedding(ids) * mask[..., None]))
        return out


def tagger() -> Any:
    """The class of a token is the token itself."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Any, Any]:
        ids = torch.randint(7, (count, 5), generator=generator)
        return {"ids": ids, "mask": torch.ones(count, 5)}, ids

    return Tagger(), make_batch, lambda outputs, targets: F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


class Segmenter(nn.Module):
    """Two inputs in order, an image and a prior, to a class for each pixel: ``(N, 3, H, W)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 1)
        self.chain = revbench.reversible([(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))])
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, image: Tensor, prior: Tensor) -> Tensor:
        out: Tensor = self.head(self.chain(self.stem(torch.cat((image, prior), 1))))
        return out


def segmenter() -> Any:
    """The class of a pixel is how bright it is."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Any, Any]:
        image = torch.rand(count, 1, 6, 4, generator=generator)
        return (image, torch.zeros_like(image)), (image[:, 0] * 3).long()

    return Segmenter(), make_batch, F.cross_entropy


def regression() -> Any:
    """Targets that are no classes."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Any, Any]:
        x = torch.randn(count, 4, generator=generator)
        return x, x.sum(1, keepdim=True)

    return nn.Linear(4, 1), make_batch, F.mse_loss


def without_batches() -> nn.Module:
    """Brings none."""
    return nn.Linear(4, 1)
