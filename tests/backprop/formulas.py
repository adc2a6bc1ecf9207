"""The formula of every coupling in plain autograd, and chains of each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench import reversible

State = tuple[Tensor, ...]


Formula = Callable[[Sequence[Any], State], State]


def additive(blocks: Sequence[Any], state: State) -> State:
    x1, x2 = state
    for f, g in blocks:
        x1 = x1 + f(x2)
        x2 = x2 + g(x1)
    return x1, x2


def affine(blocks: Sequence[Any], state: State, *, scale: str = "tanh") -> State:
    scales = {
        "tanh": lambda raw: torch.exp(torch.tanh(raw)),
        "exp": torch.exp,
        "sigmoid": lambda raw: 1 / (1 + torch.exp(-raw - 2)),
    }

    def apply(x: Tensor, value: Tensor) -> Tensor:
        raw, shift = value[:, : x.shape[1]], value[:, x.shape[1] :]
        return scales[scale](raw) * x + shift

    x1, x2 = state
    for f, g in blocks:
        x1 = apply(x1, f(x2))
        x2 = apply(x2, g(x1))
    return x1, x2


def hamiltonian(blocks: Sequence[Any], state: State) -> State:
    q, p = state
    for f, g in blocks:
        q = q + 0.7 * f(p)
        p = p - 0.7 * g(q)
    return q, p


def momentum(blocks: Sequence[Any], state: State) -> State:
    v, x = state
    for f in blocks:
        v = 0.8 * v + (1 - 0.8) * f(x)
        x = x + v
    return v, x


def midpoint(blocks: Sequence[Any], state: State, *, euler: bool = False) -> State:
    older, newer = state
    for i, f in enumerate(blocks):
        older, newer = newer, older + (0.3 if euler and i == 0 else 0.6) * f(newer)
    return older, newer


def leapfrog(blocks: Sequence[Any], state: State) -> State:
    older, newer = state
    for f in blocks:
        older, newer = newer, 2 * newer - older + 0.25 * f(newer)
    return older, newer


# By name: the formula for a pair, what one tensor becomes, and what of the pair at the end is returned for it.
def halves(x: Tensor) -> State:
    return x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]


def joined(state: State) -> Tensor:
    return torch.cat(state, 1)


def newest(state: State) -> Tensor:
    return state[1]


FORMULAS: Mapping[str, tuple[Formula, Formula, Callable[[Tensor], State], Callable[[State], Tensor]]] = {
    "additive": (additive, additive, halves, joined),
    "affine": (affine, affine, halves, joined),
    **{
        f"affine:{scale}": (
            functools.partial(affine, scale=scale),
            functools.partial(affine, scale=scale),
            halves,
            joined,
        )
        for scale in ("exp", "sigmoid")
    },
    "hamiltonian:0.7": (hamiltonian, hamiltonian, halves, joined),
    "momentum:0.8": (momentum, momentum, lambda x: (torch.zeros_like(x), x), newest),
    "midpoint:0.3": (midpoint, lambda b, s: midpoint(b, s, euler=True), lambda x: (x, x), newest),
    "leapfrog:0.5": (leapfrog, leapfrog, lambda x: (x, x), newest),
}


PAIRS = ("additive", "affine", "affine:exp", "affine:sigmoid", "hamiltonian:0.7")


class Function(nn.Module):
    """A residual function with batch norm and dropout, so that a second call which leaves a trace is seen."""

    def __init__(self, width: int = 6, *, returns: int | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm1d(width), nn.Linear(width, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, returns or width)
        )

    def forward(self, *streams: Tensor, scale: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        value: Tensor = self.body(streams[-1] + sum(s.cos() for s in streams[:-1]))
        value = value if scale is None else value * scale
        return value if mask is None else value.masked_fill(mask, 0.0)


def functions(name: str, blocks: int = 4) -> list[Any]:
    torch.manual_seed(0)
    returns = 12 if name.startswith("affine") else 6
    if name in PAIRS or name.startswith("affine"):
        return [(Function(returns=returns), Function(returns=returns)) for _ in range(blocks)]
    return [Function() for _ in range(blocks)]


def chain_of(name: str, strategy: Any = "reconstructed", blocks: int = 4) -> Any:
    return reversible(functions(name, blocks), coupling=name, strategy=strategy).double()


def waves(rows: int, columns: int) -> Tensor:
    return torch.linspace(-2, 3, rows * columns, dtype=torch.float64).mul(9).sin().view(rows, columns)


def left_behind(
    call: Callable[[], State | Tensor], inputs: Sequence[Tensor], modules: nn.Module
) -> list[Tensor | None]:
    """Values, gradients of inputs and parameters, buffers, after one forward and one backward pass."""
    torch.manual_seed(3)
    found = call()
    values = found if isinstance(found, tuple) else (found,)
    sum((y * (y.detach() + 1.7).sin()).sum() for y in values).backward()  # type: ignore[union-attr]
    gradients = [x.grad for x in (*inputs, *modules.parameters())]
    return [*values, *gradients, *(b for b in modules.buffers() if b.is_floating_point())]


def assert_close(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    """To 1e-9 of the largest number of each tensor, or of a thousandth of that of all: a bias before batch norm has a gradient
    of zero."""
    largest = max(other.detach().abs().max().item() for other in expected if other is not None)
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        assert other is not None
        assert (one - other).abs().max() <= 1e-9 * other.abs().max().clamp(min=1e-3 * largest)
