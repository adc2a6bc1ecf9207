"""State that is made late, nested deep, or written and read by another way than its module: right, or one clear error."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear, assert_as_plain, once, three, training, twice

RECOMPUTING = STRATEGIES[1:]


class RegistersLate(Linear):
    """Its running mean becomes a buffer in its first call."""

    def forward(self, x: Tensor) -> Tensor:
        if "mean" not in self._buffers:
            self.register_buffer("mean", torch.zeros(6, dtype=x.dtype))
        self.mean += 0.1 * (x.detach().mean(0) - self.mean)
        return torch.tanh(self.linear(x - self.mean))


class Nested(Linear):
    """Counts, flags and a running tensor in containers within containers."""

    def __init__(self) -> None:
        super().__init__()
        self.state = {"counts": [0, 0], "flags": {"frozen": False}, "running": (torch.zeros(6), [torch.ones(1)])}

    def forward(self, x: Tensor) -> Tensor:
        self.state["counts"][1] += 1  # type: ignore[index]
        self.state["running"][1][0] += x.detach().mean()  # type: ignore[index]
        y = self.linear(x) * (1 + 0.1 * self.state["counts"][1]) + self.state["running"][1][0]  # type: ignore[index]
        return y.detach() if self.state["flags"]["frozen"] else y  # type: ignore[call-overload,index]


class WritesThroughADict(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6, dtype=torch.float64))
        self.tensors = {"inner": {"mean": self.mean}}

    def double(self) -> WritesThroughADict:  # keeps the reference
        self.linear.double()
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.tensors["inner"]["mean"].mul_(0.9).add_(x.detach().mean(0))
        return torch.tanh(self.linear(x - self.mean))


class KeepsAView(Linear):
    """A view of its buffer is an attribute, and is what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("both", torch.zeros(2, 6, dtype=torch.float64))
        self.second = self.both[1]

    def double(self) -> KeepsAView:
        self.linear.double()
        return self

    def forward(self, x: Tensor) -> Tensor:
        self.both += x.detach().mean(0)
        return torch.tanh(self.linear(x - self.second))


class KnowsItsParameter(Linear):
    """Looks at the class and at an attribute of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.weight.gain = 0.5  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        gain = self.weight.gain if isinstance(self.weight, nn.Parameter) else 1.0  # type: ignore[attr-defined]
        return torch.tanh(self.linear(x)) * self.weight * gain


@pytest.mark.parametrize("kind", [RegistersLate, Nested, WritesThroughADict, KeepsAView, KnowsItsParameter])
@pytest.mark.parametrize("use", [once, twice, training])
def test_unusual_places(kind: Callable[[], nn.Module], use: Any) -> None:
    def kept(call: Any, chain: Any) -> dict[str, Any]:
        found = use(call, chain)
        states = [block.f.state["counts"] for block in chain.blocks if hasattr(block.f, "state")]
        return found | {"counts": states}

    assert_as_plain(three(kind), kept)


def test_a_flag_in_a_nested_container_that_is_set_before_backward() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        for block in chain.blocks:
            block.f.state["flags"]["frozen"] = True
        y.square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(three(Nested), use)


class WritesThroughAnObject(Linear):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.keeper = functools.partial(self.mean.add_, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        self.keeper()
        return torch.tanh(self.linear(x))


@pytest.mark.parametrize("strategy", RECOMPUTING)
def test_a_buffer_that_is_written_by_another_way_is_refused(strategy: Any) -> None:
    chain = reversible([(WritesThroughAnObject(), nn.Linear(6, 6))], strategy=strategy)
    loss = chain(torch.randn(5, 12)).sum()
    with pytest.raises(
        RuntimeError, match=r"writes its buffer .*mean' \(shape \(6,\)\) by another way than the module"
    ):
        loss.backward()


class MakesAParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("weight", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            self.weight = nn.Parameter(torch.eye(6, dtype=x.dtype))
        return torch.tanh(x @ self.weight)


@pytest.mark.parametrize("strategy", RECOMPUTING)
def test_a_parameter_that_a_call_makes(strategy: Any) -> None:
    chain = reversible([(MakesAParameter(), nn.Linear(6, 6))], strategy=strategy)
    x = torch.randn(5, 12)
    with pytest.raises(RuntimeError, match=r"made a parameter or a layer in this call.*torch.no_grad"):
        chain(x)
    with torch.no_grad():
        chain(x)
    chain(x).sum().backward()
    assert chain.blocks[0].f.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("strategy", RECOMPUTING)
def test_parametrizations_that_are_removed_before_backward(strategy: Any) -> None:
    chain = reversible([(weight_norm(nn.Linear(6, 6)), nn.Linear(6, 6))], strategy=strategy)
    loss = chain(torch.randn(5, 12)).sum()
    torch.nn.utils.parametrize.remove_parametrizations(chain.blocks[0].f, "weight")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"a parametrization in .* was removed between forward and backward"):
        loss.backward()
