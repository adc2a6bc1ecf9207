"""The paired architectures of Gomez et al. 2017; the catalogue is data and loads without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from revbench.paper.catalogue import CATALOGUE, Architecture, architecture

if TYPE_CHECKING:
    from revbench.models.networks import ResidualNetwork, build_model

__all__ = ["CATALOGUE", "Architecture", "ResidualNetwork", "architecture", "build_model"]


def __getattr__(name: str) -> Any:
    if name in ("ResidualNetwork", "build_model"):
        from revbench.models import networks

        return getattr(networks, name)
    raise AttributeError(f"module 'revbench.models' has no attribute {name!r}")
