"""Any modules one after the other: every strategy's gradient is plain autograd's, with masks, with several tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.errors import UserError
from revbench.probes.live_tensors import LiveTensors
from tests.backprop.chains import relative_difference

OURS = ("stored", "checkpointed", "recursive", "torch_checkpoint", "torch_selective")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear, self.dropout = nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Dropout(0.3)

    def forward(self, x: Tensor, *, scale: Tensor | None = None) -> Tensor:
        value = self.dropout(self.linear(self.norm(x)).tanh())
        return x + (value if scale is None else value * scale)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f, self.g = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return y + self.f(x).tanh(), x * self.g(y).sigmoid()


def gradients(made: Any, strategy: str, *inputs: Tensor, **given: Tensor) -> list[Tensor | None]:
    made.strategy = strategy
    made.double().zero_grad()
    torch.manual_seed(1)
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = made(leaves[0] if len(leaves) == 1 else tuple(leaves), **given)
    sum(one.square().sum() for one in (y if isinstance(y, tuple) else (y,))).backward()  # type: ignore[union-attr]
    return [*(x.grad for x in leaves), *(p.grad for p in made.parameters())]


@pytest.mark.parametrize("strategy", OURS[1:])
def test_one_tensor_with_a_keyword_that_needs_gradient(strategy: str) -> None:
    torch.manual_seed(0)
    made, x = revbench.sequential([Block() for _ in range(7)]), torch.randn(5, 6, dtype=torch.float64)

    def all_of(name: str) -> list[Tensor | None]:
        scale = torch.full((6,), 0.5, dtype=torch.float64, requires_grad=True)
        return [*gradients(made, name, x, scale=scale), scale.grad]

    assert relative_difference(all_of(strategy), all_of("stored")) < 1e-9


@pytest.mark.parametrize("strategy", OURS[1:])
def test_two_tensors(strategy: str) -> None:
    torch.manual_seed(0)
    made = revbench.sequential([Two() for _ in range(5)])
    x, y = torch.randn(2, 5, 6, dtype=torch.float64)
    assert relative_difference(gradients(made, strategy, x, y), gradients(made, "stored", x, y)) < 1e-9


def test_the_compilers_budget_and_the_hosts_memory() -> None:
    torch.manual_seed(0)
    made = revbench.sequential([Two() for _ in range(3)])
    x, y = torch.randn(2, 5, 6, dtype=torch.float64)
    assert relative_difference(gradients(made, "torch_budget", x, y), gradients(made, "stored", x, y)) < 1e-9
    with pytest.raises(NotImplementedError, match="on the CPU they are there"):
        gradients(made, "torch_offload", x, y)
    drops = revbench.sequential([Block() for _ in range(2)])
    with pytest.raises(NotImplementedError, match="torch_budget draws random numbers anew in backward"):
        gradients(drops, "torch_budget", x)


def test_statistics_are_updated_once() -> None:
    made = revbench.sequential([Block() for _ in range(4)])
    made(torch.randn(5, 6)).sum().backward()
    assert [int(block.norm.num_batches_tracked) for block in made.units] == [1] * 4  # type: ignore[union-attr,arg-type]


def test_it_keeps_about_the_square_root() -> None:
    def peak(units: int, strategy: Any) -> int:
        made = revbench.sequential(
            [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(units)], strategy=strategy
        )
        made.requires_grad_(False)
        x = torch.randn(256, 64, requires_grad=True)
        live = LiveTensors()
        live.track(made, x)
        steady = live.live_bytes
        with live:
            made(x).sum().backward()
        return live.peak_bytes - steady

    stored, checkpointed, recursive = (
        peak(64, name) - peak(16, name) for name in ("stored", "checkpointed", "recursive")
    )
    assert checkpointed < 0.25 * stored
    assert recursive < 0.25 * checkpointed + 256 * 64 * 4 * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: revbench.sequential([nn.Linear(2, 2)], strategy="reconstructed"), "has no reversible block"),
        (lambda: revbench.sequential([torch.tanh]), "unit 0 of a sequence must be a torch.nn.Module"),  # type: ignore[list-item]
    ],
)
def test_what_can_not_be(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_what_can_not_enter() -> None:
    with pytest.raises(TypeError, match="takes a tensor or a tuple of tensors, not list"):
        revbench.sequential([nn.Linear(2, 2)])([torch.ones(2)])  # type: ignore[arg-type]
