"""GPT and ViT with their reversible pairs, built from one attention and one MLP; `revbench.paper.transformers` has the sources.

An ordinary block maps one tensor to one, a reversible one two streams to two. Both have the same parameters under other names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.backprop import ReversibleBlock, coupling_of, plain_container
from revbench.choices import Nonreversible, Strategy
from revbench.models.network import Network, State
from revbench.paper.transformers import LanguageArchitecture, TransformerArchitecture, VisionArchitecture

_DEVIATION = 0.02  # of weights at first (Radford et al. 2019, as in its code)
_ROTARY_BASE = 10_000.0  # Su et al. 2021, section 3.2.2


@plain_container
class Attention(nn.Module):
    """Self-attention behind a norm: ``W softmax(q kᵀ / sqrt(d)) v + b`` of ``q, k, v = LN(x) W' + b'``.

    Shape: ``(N, T, width)`` to the same.

    Args:
        width: features of the stream.
        heads: that share them.
        causal: whether an element sees itself and those before it only.
        rotary: whether queries and keys are turned by their positions (Su et al. 2021, equation 34).
    """

    def __init__(self, width: int, heads: int, *, causal: bool, rotary: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads, self.causal, self.rotary = heads, causal, rotary

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the stream."""
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rotary:
            q, k = turned(q), turned(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def turned(x: Tensor) -> Tensor:
    """Returns queries or keys ``(N, heads, T, d)`` with each pair of features turned by position times frequency: the one half of
    the features with the other (Su et al. 2021, equation 34). Angles are computed in float32, or in float64 for float64."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    half = x.shape[-1] // 2
    frequencies = _ROTARY_BASE ** (-torch.arange(half, dtype=dtype, device=x.device) / half)
    angles = torch.arange(x.shape[-2], dtype=dtype, device=x.device)[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Mlp(nn.Sequential):
    """Two layers behind a norm: ``GELU(LN(x) W + b) W' + b'``, four times as wide inside. ``(N, T, width)`` to the same."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


@plain_container
class TransformerBlock(nn.Module):
    """``y = x + F(x)``, ``z = y + G(y)``: the unit of an ordinary transformer. ``(N, T, width)`` to the same."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``z``."""
        y = x + self.f(x)
        out: Tensor = y + self.g(y)
        return out


@plain_container
class TokenEmbedding(nn.Module):
    """Tokens ``(N, T)`` to ``(N, T, width)``; with a learned vector for each position, or without."""

    def __init__(self, a: LanguageArchitecture) -> None:
        super().__init__()
        self.tokens = nn.Embedding(a.vocabulary, a.width)
        self.positions = nn.Parameter(torch.empty(a.sequence_length, a.width)) if a.positions == "learned" else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the embedded tokens, ``(N, T, width)``.

        Args:
            tokens: int64 ``(N, T)``, each from 0 to below the vocabulary's size.

        Raises:
            ValueError: more tokens than there are learned positions.
        """
        x: Tensor = self.tokens(tokens)
        if self.positions is None:
            return x
        if tokens.shape[1] > len(self.positions):
            raise ValueError(
                f"tokens are {tuple(tokens.shape)}, and there are {len(self.positions)} learned positions; give shorter"
                " sequences, or build the network with a larger sequence_length"
            )
        return x + self.positions[: tokens.shape[1]]


@plain_container
class PatchEmbedding(nn.Module):
    """Images ``(N, 3, S, S)``, cut into patches, to ``(N, (S / patch)², width)``, with a learned vector for each position."""

    def __init__(self, a: VisionArchitecture) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, a.width, a.patch, stride=a.patch)
        self.positions = nn.Parameter(torch.empty(a.tokens, a.width))

    def forward(self, images: Tensor) -> Tensor:
        """Returns the embedded patches."""
        x: Tensor = self.patches(images).flatten(2).transpose(1, 2)
        return x + self.positions


@plain_container
class TiedHead(nn.Module):
    """``LN(x) Eᵀ`` with the embedding's own weights E: ``(N, T, width)`` to logits ``(N, T, vocabulary)``."""

    def __init__(self, width: int, embedding: nn.Embedding) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        return F.linear(self.norm(x), self.weight)


@plain_container
class PooledHead(nn.Module):
    """Mean over the patches of ``LN(x)``, then a linear layer: ``(N, T, width)`` to logits ``(N, num_classes)``."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        out: Tensor = self.linear(self.norm(x).mean(1))
        return out


class TransformerNetwork(Network[TransformerArchitecture]):
    """A language model or a vision transformer, or the reversible pair of one.

    Shape: tokens ``(N, T)``, int64, to logits ``(N, T, vocabulary)``; or images ``(N, 3, S, S)`` to logits ``(N, num_classes)``.

    Args:
        architecture: what to build.
        strategy, nonreversible: see `Network`.

    Raises:
        UserError: a strategy that the network does not support.
    """

    def __init__(
        self, architecture: TransformerArchitecture, strategy: Strategy, nonreversible: Nonreversible = "kept"
    ) -> None:
        a = architecture
        causal = isinstance(a, LanguageArchitecture)
        rotary = isinstance(a, LanguageArchitecture) and a.positions == "rotary"
        stem, head = _ends(a)
        block: Callable[[nn.Module, nn.Module], nn.Module] = TransformerBlock
        if a.reversible:
            block = functools.partial(ReversibleBlock, coupling=coupling_of(a.coupling))
        trunk = nn.ModuleList(
            block(Attention(a.width, a.heads, causal=causal, rotary=rotary), Mlp(a.width)) for _ in range(a.blocks)
        )
        super().__init__(a, strategy, nonreversible, stem, trunk, head)
        self._initialise()

    def split(self, x: Tensor) -> State:
        """Returns both streams, each ``(N, T, width)`` as `x` is, which begin alike; of an ordinary transformer `x` alone."""
        return (x, x) if self.architecture.reversible else (x,)

    def join(self, state: State) -> Tensor:
        """Returns the mean of the streams, ``(N, T, width)``."""
        return state[0] if len(state) == 1 else (state[0] + state[1]) / 2

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw the weights, in place, from torch's global generator: normal, those that end in a stream the smaller the more of
        them there are; biases are 0 (Radford et al. 2019, section 2.3)."""
        for name, p in self.named_parameters():
            if p.dim() < 2:
                nn.init.zeros_(p) if name.endswith("bias") else nn.init.ones_(p)
            else:
                ends = name.endswith((".f.out.weight", ".g.3.weight"))
                nn.init.normal_(p, std=_DEVIATION / (2 * self.architecture.blocks) ** 0.5 if ends else _DEVIATION)


def _ends(a: TransformerArchitecture) -> tuple[nn.Module, nn.Module]:
    if isinstance(a, LanguageArchitecture):
        stem = TokenEmbedding(a)
        return stem, TiedHead(a.width, stem.tokens)
    assert isinstance(a, VisionArchitecture)
    return PatchEmbedding(a), PooledHead(a.width, a.num_classes)
