"""PyTorch's own ways to keep fewer activations."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from revbench.errors import unknown
from revbench.zoo.making import ImageNetwork, Made, image_batch, pairs


class _UnderTorch(nn.Module):
    """Residual blocks on halves under one of PyTorch's own ways to keep fewer activations."""

    def __init__(self, blocks: int, way: str) -> None:
        super().__init__()
        from revbench.backprop import ReversibleBlock

        self.blocks = nn.ModuleList(ReversibleBlock(f, g) for f, g in pairs(blocks))
        self._way = way
        self._budgeted: Any = None

    def forward(self, x: Tensor) -> Tensor:
        state = tuple(x.chunk(2, 1))
        if self._way == "budget":
            state = self._under_a_budget(*state)
        elif self._way == "offload":
            with torch.autograd.graph.save_on_cpu():
                for block in self.blocks:
                    state = block(*state)
        else:
            for block in self.blocks:
                state = self._checkpointed(block, state)
        return torch.cat(state, 1)

    def _checkpointed(self, block: nn.Module, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

        kept = [torch.ops.aten.convolution.default]
        options: dict[str, Any] = {"use_reentrant": self._way == "reentrant"}
        if self._way == "selective":
            options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, kept)
        found: tuple[Tensor, ...] = checkpoint(block, *state, **options)
        return found

    def _under_a_budget(self, *state: Tensor) -> tuple[Tensor, ...]:
        import torch._functorch.config as settings

        def run(*given: Tensor) -> tuple[Tensor, ...]:
            for block in self.blocks:
                given = block(*given)
            return given

        if self._budgeted is None:
            self._budgeted = torch.compile(run)
        with settings.patch(activation_memory_budget=0.0):
            found: tuple[Tensor, ...] = self._budgeted(*state)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> _UnderTorch:
        other = _UnderTorch(0, self._way)
        memo[id(self)] = other
        other.blocks = copy.deepcopy(self.blocks, memo)
        return other


def torch_recomputation(way: str = "nonreentrant", blocks: int = 3) -> Made:
    """Returns the network of `revbench` under one of PyTorch's own ways.

    Args:
        way: ``nonreentrant`` or ``reentrant`` checkpoints, ``selective`` ones that keep the outputs of convolutions, ``budget``
            (compiled, with an activation memory budget of 0: what can be had again is not kept), or ``offload`` (`save_on_cpu`).
        blocks: of the network.

    Raises:
        UserError: an unknown way.
    """
    if way not in TORCH_WAYS:
        raise unknown("way of PyTorch's", way, TORCH_WAYS)
    return ImageNetwork(_UnderTorch(blocks, way)), image_batch, cross_entropy


TORCH_WAYS = ("nonreentrant", "reentrant", "selective", "budget", "offload")
