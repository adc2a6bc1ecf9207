"""Reversible blocks that are not revbench's, back-propagated by a function of their own, with faults to be planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

FAULTS = (
    "none", "wrong sign in the inverse", "batch norm updated twice", "random numbers not restored",
    "a float16 cast inside G", "off by one block", "nearly singular",
)  # fmt: skip


class Half(nn.Module):
    """A residual function: batch norm, ReLU, linear, dropout."""

    def __init__(self, width: int, *, outputs: int | None = None, dropout: float = 0.0, cast: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, outputs or width)
        self.dropout = nn.Dropout(dropout)
        self.cast = cast

    def forward(self, x: Tensor) -> Tensor:
        if self.cast:
            x = x.half().to(x.dtype)
        return self.dropout(self.linear(torch.relu(self.norm(x))))


class AffineCoupling(nn.Module):
    """``y1 = x1``, ``y2 = x2 exp(s(x1)) + t(x1)``, then the halves swapped (Dinh et al. 2017)."""

    def __init__(
        self, width: int, *, dropout: float = 0.0, cast: bool = False, shrink: float = 0.0, sign: int = 1
    ) -> None:
        super().__init__()
        self.net = Half(width, outputs=2 * width, dropout=dropout, cast=cast)
        self.shrink = shrink
        self.sign = sign

    def _scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self.net(x).chunk(2, 1)
        return torch.exp(0.5 * torch.tanh(scale) - self.shrink), shift

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(x1)
        return x2 * scale + shift, x1

    def inverse(self, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(y2)
        return y2, (y1 - self.sign * shift) / scale


class Reconstructing(torch.autograd.Function):
    """Back-propagates a chain of invertible blocks from its outputs, block by block."""

    @staticmethod
    def forward(ctx: Any, net: ForeignNetwork, x1: Tensor, x2: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        ctx.net, ctx.states = net, []
        state = x1, x2
        for block in net.blocks:
            ctx.states.append(torch.get_rng_state())
            state = block(*state)
        ctx.outputs = tuple(y.detach() for y in state)
        return state

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        net: ForeignNetwork = ctx.net
        state, found = ctx.outputs, {}
        kept = torch.get_rng_state()
        for i in reversed(range(len(net.blocks))):
            block: Any = net.blocks[i]
            if net.fault != "batch norm updated twice":
                _tracking(block, False)
            if net.fault != "random numbers not restored":
                torch.set_rng_state(ctx.states[i])
            inverter: Any = net.blocks[i - 1 if net.fault == "off by one block" and i else i]
            with torch.no_grad():
                state = inverter.inverse(*state)
            if net.fault != "random numbers not restored":
                torch.set_rng_state(ctx.states[i])
            leaves = [x.detach().requires_grad_() for x in state]
            parameters = list(block.parameters())
            with torch.enable_grad():
                outputs = block(*leaves)
            *grads, gradients = (
                *(pair := torch.autograd.grad(outputs, [*leaves, *parameters], grads))[:2],
                pair[2:],
            )
            found |= {id(p): g for p, g in zip(parameters, gradients, strict=True)}
            _tracking(block, True)
        if net.fault != "random numbers not restored":
            torch.set_rng_state(kept)
        return None, *grads, *(found[id(p)] for p in net.blocks.parameters())


def _tracking(block: nn.Module, on: bool) -> None:
    for module in block.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats = on
            if on:
                module.running_mean, module.running_var = module.__dict__.pop(
                    "_kept", (module.running_mean, module.running_var)
                )
            else:
                module.__dict__["_kept"] = module.running_mean, module.running_var
                module.running_mean = module.running_var = None


class ForeignNetwork(nn.Module):
    """Affine couplings between two linear layers; `reconstructs` chooses how they are back-propagated."""

    def __init__(self, fault: str = "none", *, blocks: int = 5, width: int = 8) -> None:
        super().__init__()
        self.fault = fault
        self.reconstructs = False
        self.stem, self.head = nn.Linear(6, 2 * width), nn.Linear(2 * width, 4)
        self.blocks = nn.ModuleList(
            AffineCoupling(
                width, dropout=0.2 if fault == "random numbers not restored" else 0.0,
                cast=fault == "a float16 cast inside G" and i == 2, shrink=12.0 if fault == "nearly singular" and i == 2 else 0.0,
                sign=-1 if fault == "wrong sign in the inverse" and i == 2 else 1,
            )
            for i in range(blocks)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        state: Sequence[Tensor] = self.stem(x).chunk(2, 1)
        if self.reconstructs:
            state = Reconstructing.apply(self, *state, *self.blocks.parameters())
        else:
            for block in self.blocks:
                state = block(*state)
        return self.head(torch.cat(tuple(state), 1))


def set_strategy(model: nn.Module, strategy: str) -> None:
    assert isinstance(model, ForeignNetwork)
    model.reconstructs = strategy == "reconstructed"


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(32, 6), torch.randint(4, (32,))
