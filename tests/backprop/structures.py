"""Random reversible chains: layers of the field in any order, steep ones and ones with steps among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import reversible


class Of(nn.Module):
    """A function as a module, which nobody knows anything about."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Gated(nn.Module):
    """The better half of a few experts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(width, 3), nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        score, index = self.gate(x).softmax(-1).max(-1, keepdim=True)
        outs = torch.stack([expert(x) for expert in self.experts], -1)
        return outs.gather(-1, index[..., None].expand(*x.shape, 1)).squeeze(-1) * score


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.q(x) @ self.k(x).t() / x.shape[1] ** 0.5).softmax(-1) @ self.v(x)


def fake_quantised(x: Tensor) -> Tensor:
    scale = x.detach().abs().amax().clamp(min=1e-6) / 127
    return x + ((x / scale).round() * scale - x).detach()


def top_half(x: Tensor) -> Tensor:
    values, index = x.topk(max(1, x.shape[-1] // 2), -1)
    return torch.zeros_like(x).scatter(-1, index, values)


LAYERS: list[Callable[[int], nn.Module]] = [
    lambda d: nn.Linear(d, d),
    lambda d: nn.Sequential(nn.Linear(d, 3 * d), nn.GELU(), nn.Linear(3 * d, d)),
    lambda d: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d)),
    Attention,
    Gated,
    *(lambda d, kind=kind: kind() for kind in (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU)),
    nn.LayerNorm,
    nn.BatchNorm1d,
    lambda d: nn.GroupNorm(1, d),
    lambda d: nn.RMSNorm(d),
    lambda d: nn.Dropout(0.3),
    lambda d: Of(lambda x: x * torch.rand_like(x)),
    lambda d: Of(lambda x: F.normalize(x, dim=-1)),
    lambda d: Of(lambda x: x.to(torch.bfloat16).tanh().to(x.dtype)),
    lambda d: Of(torch.abs),
    lambda d: Of(torch.sign),
    lambda d: Of(torch.round),
    lambda d: Of(lambda x: x.clamp(-1, 1)),
    lambda d: Of(fake_quantised),
    lambda d: Of(top_half),
]


@st.composite
def structures(draw: Any) -> tuple[nn.Module, Tensor, str, bool]:
    """A chain, its input, a strategy, and whether autocast to bfloat16 surrounds it."""
    torch.manual_seed(draw(st.integers(0, 2**31)))
    width, batch = draw(st.sampled_from([2, 3, 8, 17, 64])), draw(st.sampled_from([2, 3, 8, 33, 128]))
    kind = draw(st.sampled_from(["float32", "float32", "bfloat16", "autocast", "float64"]))
    dtype = torch.float32 if kind == "autocast" else getattr(torch, kind)

    def half() -> nn.Module:
        return nn.Sequential(
            *(layer(width) for layer in draw(st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4)))
        )

    chain = reversible([(half(), half()) for _ in range(draw(st.integers(1, 6)))]).to(dtype)
    scale = draw(st.sampled_from([0.01, 1.0, 1.0, 10.0]))
    x = (torch.randn(batch, 2 * width) * scale).to(dtype).requires_grad_()
    strategy = draw(st.sampled_from(["reconstructed", "reconstructed", "reconstructed", "checkpointed", "recursive"]))
    return chain, x, strategy, kind == "autocast"
