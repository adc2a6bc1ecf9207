"""Where a graph begins, kept without the value that it leads to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

# Since PyTorch 2.7 an edge keeps the node alive that it begins at, also one of a function that is written in Python.
_EDGES_OWN = "ownership_token" in GradientEdge._fields


def edge_to(value: Tensor) -> GradientEdge:
    """Returns the edge that leads to a value's graph, whose nodes it keeps; the value may be let go of.

    Args:
        value: that has a graph, or is a leaf that needs gradient.
    """
    if _EDGES_OWN:
        return get_gradient_edge(value)
    with torch.enable_grad():
        return get_gradient_edge(value.view_as(value))
