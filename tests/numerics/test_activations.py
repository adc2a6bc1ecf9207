"""Reconstruction errors by the inverse of blocks that are not ours: of one tensor, of several, in a list, beside other things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench.numerics.activations import round_trips


class Scaled(nn.Module):
    """One tensor in, one out; `off` spoils the inverse."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.scale, self.off = nn.Parameter(torch.tensor(1.5, dtype=torch.float64)), off

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale

    def inverse(self, y: Tensor) -> Tensor:
        return y / self.scale * (1 + self.off)


class Groups(nn.Module):
    """So many groups: each is added to a function of the one before it; the edges of a graph go in beside them."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.functions = nn.ModuleList(nn.Linear(4, 4).double() for _ in range(count))

    def forward(self, *streams: Tensor) -> tuple[Tensor, ...]:
        *xs, edges = streams
        out, y = [], sum(xs[1:])
        for f, x in zip(self.functions, xs, strict=True):
            y = x + f(y)[edges]
            out.append(y)
        return tuple(out)

    def inverse(self, *streams: Tensor) -> tuple[Tensor, ...]:
        *ys, edges = streams
        xs = []
        for i in range(len(ys) - 1, 0, -1):
            xs.append(ys[i] - self.functions[i](ys[i - 1])[edges])
        xs.append(ys[0] - self.functions[0](sum(xs))[edges])
        return tuple(xs[::-1])


class InAList(nn.Module):
    """A list in, a list and a log determinant out, as invertible networks for densities have it."""

    def forward(self, xs: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        return [xs[0] * 2, xs[1] + xs[0]], xs[0].new_zeros(len(xs[0]))

    def inverse(self, ys: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        return [ys[0] / 2, ys[1] - ys[0] / 2], ys[0].new_zeros(len(ys[0]))


class Frees(Scaled):
    """Its inverse frees what it is given, as some do to save memory."""

    def inverse(self, y: Tensor) -> Tensor:
        x = super().inverse(y)
        y.untyped_storage().resize_(0)
        return x


class Whole(nn.Module):
    def __init__(self, blocks: list[nn.Module], call: Callable[[nn.ModuleList, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks, self._call = nn.ModuleList(blocks), call

    def forward(self, x: Tensor) -> Tensor:
        return self._call(self.blocks, x)


def through(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x


def through_groups(blocks: Any, x: Tensor) -> Tensor:
    edges = torch.arange(len(x)).roll(1)
    state = x.split(4, 1)
    for block in blocks:
        state = block(*state, edges)
    return torch.cat(state, 1)


class Named(nn.Module):
    """Function and inverse read a factor that is given by name, and the function another thing as well."""

    def forward(self, x: Tensor, *, factor: float = 1.0, unread: bool = False) -> Tensor:
        return x * factor if unread else x

    def inverse(self, y: Tensor, *, factor: float = 1.0) -> Tensor:
        return y / factor


def through_named(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, factor=1.5, unread=True)
    return x


def through_lists(blocks: Any, x: Tensor) -> Tensor:
    state = list(x.chunk(2, 1))
    for block in blocks:
        state, _ = block(state)
    return torch.cat(state, 1)


@pytest.mark.parametrize(
    ("make", "call"),
    [
        (lambda: [Scaled() for _ in range(3)], through),
        (lambda: [Frees() for _ in range(3)], through),
        (lambda: [Groups(2) for _ in range(3)], through_groups),
        (lambda: [Groups(3) for _ in range(3)], through_groups),
        (lambda: [InAList() for _ in range(3)], through_lists),
        (lambda: [Named() for _ in range(3)], through_named),
    ],
    ids=["one tensor", "one that is freed", "two groups", "three groups", "a list", "by name"],
)
def test_what_an_inverse_brings_back(make: Callable[[], list[nn.Module]], call: Any) -> None:
    torch.manual_seed(0)
    blocks = make()
    width = 12 if isinstance(blocks[0], Groups) and len(blocks[0].functions) == 3 else 8
    found, left_out = round_trips(Whole(blocks, call), torch.randn(5, width, dtype=torch.float64))
    assert left_out == {}
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    assert all(0 <= error.rms < 1e-13 for error in found.values())


def test_errors_of_a_chain_go_on_from_block_to_block() -> None:
    found, _ = round_trips(
        Whole([Scaled(), Scaled(1e-3), Scaled(1e-3)], through), torch.randn(5, 8, dtype=torch.float64)
    )
    assert [round(error.rms, 6) for error in found.values()] == [0.002001, 0.002001, 0.001]


class OfAnotherShape(Scaled):
    def inverse(self, y: Tensor) -> Tensor:
        return y[:, 1:]


class Raises(Scaled):
    def inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError("not yet")


class Splits(Scaled):
    def forward(self, x: Tensor) -> Any:
        return x[:, :4], x[:, 4:]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (OfAnotherShape(), "can't be called with what it returned: it returns 1 tensors of other shapes"),
        (Raises(), "can't be called with what it returned: not yet"),
        (Splits(), "does not take and return tensors, as many"),
    ],
)
def test_inverses_of_another_form_are_left_out_with_the_reason(block: nn.Module, reason: str) -> None:
    def call(blocks: Any, x: Tensor) -> Tensor:
        y = blocks[0](x)
        return y if isinstance(y, Tensor) else torch.cat(y, 1)

    found, left_out = round_trips(Whole([block], call), torch.randn(5, 8, dtype=torch.float64))
    assert found == {}
    assert reason in left_out["blocks.0"]
