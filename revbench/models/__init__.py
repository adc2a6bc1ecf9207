"""The paired architectures of Gomez et al. 2017."""

from __future__ import annotations

from typing import Any

from revbench.backprop import Nonreversible, Strategy
from revbench.models.catalogue import CATALOGUE, Architecture, architecture
from revbench.models.networks import ResidualNetwork

__all__ = ["CATALOGUE", "Architecture", "ResidualNetwork", "architecture", "build_model"]


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
    if strategy is None:
        strategy = "reconstructed" if found.family == "revnet" else "stored"
    return ResidualNetwork(found, strategy, nonreversible)
