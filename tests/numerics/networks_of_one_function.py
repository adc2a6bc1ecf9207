"""A network of a coupling that takes one function a block, as a factory gives it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import revbench


def network() -> tuple[nn.Module, Any, Any]:
    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 8, generator=generator), torch.randn(count, 8, generator=generator)

    functions = [nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh()) for _ in range(3)]
    return revbench.reversible(functions, coupling="midpoint"), make_batch, nn.MSELoss()
