"""Networks as people build them: their factories look at data, copy modules, keep constants."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import revbench


def batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 8, generator=generator), torch.randn(count, 8, generator=generator)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


def half() -> nn.Module:
    return nn.Linear(4, 4)


class DropPath(nn.Module):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.linear = rate, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        kept = x.new_empty(len(x), 1).bernoulli_(1 - self.rate) / (1 - self.rate)
        return self.linear(x) * kept


class Masked(nn.Module):
    """A constant in an attribute, one in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.mask, self.others = nn.Linear(4, 4), torch.tril(torch.ones(4, 4)), [torch.ones(4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x @ self.mask) * self.others[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x[:, None])[0][:, 0]


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x + self.embedding(torch.zeros(len(x), dtype=torch.long)))


def chain(*halves: nn.Module) -> Any:
    halves = halves or tuple(half() for _ in range(4))
    pairs = list(zip(halves[::2], halves[1::2], strict=True))
    return revbench.reversible(pairs), batch, loss


def rates_by_item() -> Any:
    return chain(*(DropPath(rate.item()) for rate in torch.linspace(0, 0.1, 4)))


def checked() -> Any:
    made = chain()
    weight = made[0].blocks[0].f.weight
    nn.init.trunc_normal_(weight)
    nn.init.orthogonal_(weight)
    assert torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-5)
    return made


def from_numpy() -> Any:
    made = chain()
    with torch.no_grad():
        made[0].blocks[0].f.weight.copy_(torch.from_numpy(np.eye(4, dtype=np.float32)))
    return made


def copied() -> Any:
    """As `nn.TransformerEncoder` makes its layers; batch norm inside."""
    layer = nn.Sequential(nn.Linear(4, 40), nn.BatchNorm1d(40), nn.Linear(40, 4))
    return chain(*(copy.deepcopy(layer) for _ in range(4)))


def constants() -> Any:
    return chain(*(Masked() for _ in range(4)))


def recurrent() -> Any:
    return chain(Recurrent(), Recurrent())


def sparse() -> Any:
    return chain(Sparse(), Sparse())


def tied() -> Any:
    made = chain()
    made[0].blocks[1].f.weight = made[0].blocks[0].f.weight
    return made


def held_twice() -> Any:
    """A list of a module holds its weights, too."""
    made = chain()
    made[0].blocks[0].f.weights = [made[0].blocks[0].f.weight]
    return made


def batch_of_data() -> Any:
    """A batch whose making looks at data."""

    def ragged(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 8, generator=generator)
        keep = x[x[:, 0] > x[:, 0].mean().item() - 100]
        return keep, torch.randn(len(keep), 8, generator=generator)

    return chain()[0], ragged, loss


def squared() -> Any:
    return chain()[0], batch, nn.functional.mse_loss


def smooth() -> Any:
    return chain()[0], batch, nn.functional.smooth_l1_loss


class OnlyIfReal(nn.Module):
    """Takes a fake tensor for a sign of a trace, as transformers does, and makes a mask then."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out * torch.ones(len(x), len(x)).sum() if isinstance(x, torch._subclasses.FakeTensor) else out


def asks() -> Any:
    return chain(OnlyIfReal(), OnlyIfReal())


LOOKING = (
    "rates_by_item", "checked", "from_numpy", "copied", "constants", "recurrent", "sparse", "tied", "held_twice",
    "batch_of_data", "squared", "smooth", "asks",
)  # fmt: skip
