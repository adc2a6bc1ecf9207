"""Backward in a thread of its own, which is what a GPU's backward pass is: autograd has a thread for each device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench import reversible
from revbench.backprop import ReversibleChain
from revbench.choices import STRATEGIES


def half(kind: str) -> nn.Module:
    """Normalised, with dropout: of PyTorch's own layers, or of a class that is looked at in every respect."""
    layers = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.Dropout(0.2))
    return layers if kind == "plain" else Own(layers)


class Own(nn.Module):
    """Keeps count of its calls, and computes under the autocast of whoever calls it."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        out: Tensor = self.layers(x) * torch.rand(())
        return out


def here(work: Callable[[], None]) -> None:
    work()


def elsewhere(work: Callable[[], None]) -> None:
    problems: list[BaseException] = []

    def tried() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=tried)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def trained(where: Callable[[Callable[[], None]], None], strategy: Any, kind: str, autocast: bool) -> dict[str, Any]:
    """What two steps leave behind whose backward passes run in that thread."""
    torch.manual_seed(3)
    chain: ReversibleChain = reversible(
        [(half(kind), half(kind)) for _ in range(3)], strategy=strategy, certify=strategy == "reconstructed"
    )
    recomputing: list[bool] = []
    for block in chain.blocks:
        block.f.register_forward_hook(lambda *_: recomputing.append(revbench.is_recomputing()))
    x = torch.randn(6, 8, 5, 5, requires_grad=True)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = chain(x).square().sum()
        where(loss.backward)
    found: dict[str, Any] = {"x": x.grad, "loss": loss.detach(), "random": torch.get_rng_state()}
    found |= {name: p.grad for name, p in chain.named_parameters()} | dict(chain.named_buffers())
    return found | {
        "recomputing": recomputing,
        "calls": [module.calls for module in chain.modules() if isinstance(module, Own)],
        "certificate": str(chain.certificate) if strategy == "reconstructed" else None,
    }


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("kind", ["plain", "own"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_bit_is_the_same(strategy: str, kind: str, autocast: bool) -> None:
    expected, found = (trained(where, strategy, kind, autocast) for where in (here, elsewhere))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        same = torch.equal(value, found[name]) if isinstance(value, Tensor) else value == found[name]
        assert same, name
    if strategy != "stored":
        assert any(found["recomputing"])


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_an_error_of_the_backward_pass_reaches_the_caller(strategy: Any) -> None:
    """And the module is as it was, in every thread."""

    class Fails(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if revbench.is_recomputing():
                raise ValueError("not again")
            return super().forward(x)

    chain = reversible([(Fails(4, 4), nn.Linear(4, 4)) for _ in range(2)], strategy=strategy)
    loss = chain(torch.randn(3, 8)).sum()
    with pytest.raises(ValueError, match="not again"):
        elsewhere(loss.backward)
    seen: list[bool] = []
    elsewhere(lambda: seen.append(revbench.is_recomputing()))
    assert seen == [False]
    assert not revbench.is_recomputing()
