"""The networks of the catalogue, in pairs; the catalogue is data and loads without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from revbench.paper.architectures import Architecture
from revbench.paper.catalogue import CATALOGUE, architecture

if TYPE_CHECKING:
    from revbench.models.network import Network
    from revbench.models.networks import batches_of, build_model, network_of

__all__ = ["CATALOGUE", "Architecture", "Network", "architecture", "batches_of", "build_model", "network_of"]

_HOMES = {"Network": "network", "batches_of": "networks", "build_model": "networks", "network_of": "networks"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"revbench.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'revbench.models' has no attribute {name!r}")
