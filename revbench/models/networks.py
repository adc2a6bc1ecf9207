"""Networks of the catalogue by their names, and what they are fed with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from revbench.choices import Nonreversible, Strategy
from revbench.models.network import Network
from revbench.models.residual_networks import ResidualNetwork
from revbench.models.transformers import TransformerNetwork
from revbench.paper.architectures import Architecture
from revbench.paper.catalogue import architecture
from revbench.paper.residual import ResidualArchitecture
from revbench.paper.transformers import LanguageArchitecture, TransformerArchitecture, VisionArchitecture

MakeBatch = Callable[[int, torch.Generator], tuple[Any, Any]]
Loss = Callable[[Any, Any], Tensor]


def build_model(
    name: str,
    *,
    num_classes: int | None = None,
    strategy: Strategy | None = None,
    nonreversible: Nonreversible = "kept",
    **overrides: Any,
) -> Network[Any]:
    """Build a network of the catalogue, with weights from torch's global generator.

    Args:
        name: a key of `CATALOGUE`, e.g. ``revnet-38`` or ``revgpt-1m``.
        num_classes: outputs; the catalogue's own (10, ImageNet 1000) if not given.
        strategy: by default ``reconstructed`` for a reversible network, else ``stored``.
        nonreversible: ``kept`` or ``recomputed``; see `Network`.
        overrides: see `revbench.paper.catalogue.architecture`.

    Returns:
        A module from images ``(N, 3, H, W)`` to logits ``(N, num_classes)``, or from tokens ``(N, T)`` to logits
        ``(N, T, vocabulary)``, float32, in training mode.

    Raises:
        UserError: an unknown name, a value that no network can have, a strategy that is not supported.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    found = architecture(name, **overrides)
    return network_of(found, strategy or found.default_strategy, nonreversible)


def network_of(found: Architecture, strategy: Strategy, nonreversible: Nonreversible = "kept") -> Network[Any]:
    """Returns a network of an architecture."""
    if isinstance(found, ResidualArchitecture):
        return ResidualNetwork(found, strategy, nonreversible)
    assert isinstance(found, TransformerArchitecture)
    return TransformerNetwork(found, strategy, nonreversible)


def batches_of(found: Architecture) -> tuple[MakeBatch, Loss]:
    """Returns what draws a batch for a network of an architecture, and its loss: the mean cross-entropy of a class, or of each
    next token."""
    if isinstance(found, LanguageArchitecture):
        return uniform_tokens(found.sequence_length, found.vocabulary), token_cross_entropy
    assert isinstance(found, (ResidualArchitecture, VisionArchitecture))
    return normal_images(found.image_size, found.num_classes), cross_entropy


def normal_images(size: int, classes: int) -> MakeBatch:
    """Draws standard normal images ``(N, 3, size, size)`` and uniform labels ``(N,)``."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        images = torch.randn(count, 3, size, size, generator=generator)
        return images, torch.randint(classes, (count,), generator=generator)

    return make_batch


def uniform_tokens(length: int, vocabulary: int) -> MakeBatch:
    """Draws uniform tokens ``(N, length)`` and, as targets, those that follow each."""

    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(vocabulary, (count, length + 1), generator=generator)
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    return make_batch


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy in nats of logits ``(N, T, vocabulary)`` to targets ``(N, T)``."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten())
