"""Switches against masks that are counted and imposed by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import revbench
from revbench.choices import STRATEGIES
from revbench.numerics.gradients import compare_gradients
from revbench.numerics.switches import Switches

Function = Callable[[Tensor], Tensor]

UNITS: dict[str, Function] = {
    "functional": F.relu,
    "functional in place": lambda x: F.relu(x * 1, inplace=True),
    "torch": torch.relu,
    "torch in place": lambda x: torch.relu_(x * 1),
    "method": lambda x: x.relu(),
    "method in place": lambda x: (x * 1).relu_(),
    "module": nn.ReLU(),
    "leaky": lambda x: F.leaky_relu(x, 0.2),
    "leaky in place": lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
    "leaky module": nn.LeakyReLU(0.2),
    "leaky by slope": lambda x: F.prelu(x, torch.full((1,), 0.2, dtype=x.dtype)),
    "torch by name": lambda x: torch.relu(input=x),
}
BOUNDED: dict[str, Function] = {
    "relu6": F.relu6,
    "relu6 module": nn.ReLU6(),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0),
    "hardtanh in place": lambda x: F.hardtanh(x * 1, 0.0, 6.0, inplace=True),
}


class Two(nn.Module):
    def __init__(self, unit: Function) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        return self.unit(x) * 3 + self.unit(x - 1)


@pytest.mark.parametrize("name", UNITS)
def test_frozen_units_are_a_linear_function(name: str) -> None:
    torch.manual_seed(1)
    model = Two(UNITS[name])
    reference, other = torch.randn(50, dtype=torch.float64), torch.randn(50, dtype=torch.float64, requires_grad=True)
    switches = Switches(model)
    with switches.watching():
        out = model(reference)
    assert torch.equal(out, model(reference))  # to follow changes no bit
    slope = 0.2 if "leaky" in name else 0.0
    masks = [torch.where(reference > at, 1.0, slope).double() for at in (0, 1)]
    frozen = Switches(model, frozen_to=switches)
    with frozen.watching():
        out = model(other)
        out.sum().backward()
    assert torch.allclose(out, other * masks[0] * 3 + (other - 1) * masks[1], atol=1e-14)
    assert torch.allclose(other.grad, masks[0] * 3 + masks[1], atol=1e-14)  # type: ignore[arg-type]
    seen = Switches(model)
    with seen.watching():
        model(other)
    by_hand = sum(int(((reference > at) != (other > at)).sum()) for at in (0, 1))
    assert sum(seen.flips(switches).values()) == by_hand > 0
    assert seen.units() == 100


@pytest.mark.parametrize("name", BOUNDED)
def test_frozen_bounds_are_constants(name: str) -> None:
    torch.manual_seed(1)
    model = Two(BOUNDED[name])
    reference, other = 4 * torch.randn(90).double(), (4 * torch.randn(90).double()).requires_grad_()
    with (switches := Switches(model)).watching():
        assert torch.equal(model(reference), 3 * F.relu6(reference) + F.relu6(reference - 1))
    with Switches(model, frozen_to=switches).watching():
        out = model(other)
        out.sum().backward()
    parts = []
    for at in (0, 1):
        x, y = reference - at, other - at
        parts.append(torch.where(x <= 0, 0.0, torch.where(x >= 6, 6.0, y)))
    assert torch.allclose(out, 3 * parts[0] + parts[1])
    inside = [((reference - at > 0) & (reference - at < 6)).double() for at in (0, 1)]
    assert torch.allclose(other.grad, 3 * inside[0] + inside[1])  # type: ignore[arg-type]


class WithPlaces(nn.Module):
    """Pools and puts what it took back in its place."""

    def forward(self, x: Tensor) -> Tensor:
        out, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(out, places, 2)


@pytest.mark.parametrize(
    "pool",
    [nn.AdaptiveMaxPool2d(3), WithPlaces(), nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool1d(2)],
)
def test_frozen_windows_take_the_place_of_the_reference(pool: nn.Module) -> None:
    torch.manual_seed(2)
    shape = (2, 3, 8) if isinstance(pool, nn.MaxPool1d) else (2, 3, 8, 8)
    reference, other = torch.randn(shape), torch.randn(shape, requires_grad=True)
    switches = Switches(pool)
    with switches.watching():
        out = pool(reference)
    assert torch.equal(out, pool(reference))
    marked = reference.clone().requires_grad_()
    pool(marked).sum().backward()  # 1 where the largest are
    frozen = Switches(pool, frozen_to=switches)
    with frozen.watching():
        pool(other).sum().backward()
    assert torch.equal(other.grad, marked.grad)  # type: ignore[arg-type]
    with (again := Switches(pool, frozen_to=switches)).watching():
        assert torch.equal(pool(reference), out)
    assert again.choices == {}


class Functional(nn.Module):
    """One ReLU module for two calls, one functional call, dropout: what a user's F may look like."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.relu(self.second(self.relu(self.first(self.relu(x))))))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shared", [False, True])
def test_the_same_gradient_under_every_strategy(strategy: str, shared: bool) -> None:
    """Recomputations are matched with the calls that they repeat, also of a function that stands in every block."""
    one = Functional()
    chain = revbench.reversible([(one, one) if shared else (Functional(), Functional()) for _ in range(5)]).double()
    reference = torch.randn(4, 12, dtype=torch.float64)
    x = reference + 0.3 * torch.randn(4, 12, dtype=torch.float64)  # so far off that many units flip
    found = {}
    for name in ("stored", strategy):
        chain.strategy = name  # type: ignore[assignment]
        torch.manual_seed(5)
        switches = Switches(chain)
        with switches.watching():
            chain(reference).square().sum().backward()
        chain.zero_grad()
        torch.manual_seed(5)
        seen = Switches(chain)
        with seen.watching():
            chain(x).square().sum().backward()
        free = torch.cat([p.grad.flatten() for p in chain.parameters()])  # type: ignore[union-attr]
        chain.zero_grad()
        torch.manual_seed(5)
        with Switches(chain, frozen_to=switches).watching():
            chain(x).square().sum().backward()
        frozen = torch.cat([p.grad.flatten() for p in chain.parameters()])  # type: ignore[union-attr]
        chain.zero_grad()
        found[name] = free, frozen, seen.flips(switches), switches.places
    (free, frozen, flips, places), others = found["stored"], found[strategy]
    assert torch.allclose(frozen, others[1], rtol=1e-9, atol=1e-9)
    assert torch.allclose(free, others[0], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(free, frozen, rtol=1e-3)
    assert flips == others[2]
    assert sum(flips.values()) > 0
    assert places == others[3]


def test_a_function_that_runs_again_in_ways_that_are_not_known() -> None:
    shared = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = shared

        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.shared, x, use_reentrant=False)
            return checkpoint(self.shared, x, use_reentrant=False)

    model = Twice()
    x = torch.randn(2, 4)
    with (switches := Switches(model)).watching():
        model(x)
    with (
        pytest.raises(NotImplementedError, match="module shared, which forward called 2 times"),
        Switches(model, frozen_to=switches).watching(),
    ):
        model(x).sum().backward()
    x, y = torch.randn(20_000, 4).bfloat16(), torch.randn(20_000, 4).bfloat16()  # so that some units flip
    drift = compare_gradients(model.bfloat16(), F.mse_loss, x, y)
    assert drift.whole.smooth_relative_error is None
    assert "which forward called 2 times" in str(drift.smooth_reason)
    assert drift.whole.relative_error < 0.1
