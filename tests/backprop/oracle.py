"""Plain autograd of a chain, with none of the package's code, and every strategy compared with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.backprop import ReversibleChain
from revbench.choices import STRATEGIES

Pairs = list[tuple[nn.Module, nn.Module]]
Call = Callable[..., Any]


class Linear(nn.Module):
    """A module of one's own with a linear layer in it."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)


def three(kind: Callable[[], nn.Module]) -> Callable[[], Pairs]:
    """Three blocks of a kind."""
    return lambda: [(kind(), kind()) for _ in range(3)]


def plain(chain: ReversibleChain, x: Any, *args: Any, f_kwargs: Any = None, g_kwargs: Any = None, **kwargs: Any) -> Any:
    """``y1 = x1 + F(x2)``, ``y2 = x2 + G(y1)`` (Gomez et al. 2017, equation 6)."""
    x1, x2 = x.chunk(2, chain.split_dim) if isinstance(x, Tensor) else x
    for block in chain.blocks:
        x1 = x1 + block.f(x2, *args, **kwargs, **(f_kwargs or {}))
        x2 = x2 + block.g(x1, *args, **kwargs, **(g_kwargs or {}))
    return torch.cat((x1, x2), chain.split_dim) if isinstance(x, Tensor) else (x1, x2)


def measured(chain: ReversibleChain, call: Call, use: Callable[[Call, ReversibleChain], dict[str, Any] | None]) -> Any:
    """What a use leaves behind: its results, and gradients, parameters and buffers of the chain."""
    torch.manual_seed(2)
    found = use(call, chain) or {}
    for name, p in chain.named_parameters():
        found |= {f"gradient of {name}": None if p.grad is None else p.grad.clone(), name: p.detach().clone()}
    return found | {name: buffer.detach().clone() for name, buffer in chain.named_buffers()}


def assert_as_plain(
    make: Callable[[], Pairs],
    use: Callable[[Call, ReversibleChain], dict[str, Any] | None],
    *,
    strategies: Sequence[str] = STRATEGIES,
    tolerance: float = 1e-9,
    split_dim: int = 1,
) -> None:
    """Every strategy in float64 against plain autograd: results, gradients, parameters, buffers."""

    def fresh(strategy: Any) -> ReversibleChain:
        torch.manual_seed(1)
        return reversible(make(), split_dim=split_dim, strategy=strategy).double()

    reference = fresh("stored")
    expected = measured(reference, lambda x, *args, **kwargs: plain(reference, x, *args, **kwargs), use)
    for strategy in strategies:
        chain = fresh(strategy)
        found = measured(chain, chain, use)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
                difference = (found[name] - value).abs().max().item() if value.numel() else 0.0
                assert difference <= tolerance * scale, (strategy, name, difference)
            elif isinstance(value, Tensor):
                assert torch.equal(found[name], value), (strategy, name)
            else:
                assert found[name] == value, (strategy, name, found[name], value)


def once(call: Call, chain: ReversibleChain) -> dict[str, Any]:
    """One forward and one backward pass."""
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    y = call(x)
    y.square().sum().backward()
    return {"y": y.detach(), "gradient of x": x.grad}


def twice(call: Call, chain: ReversibleChain) -> dict[str, Any]:
    """Two forward passes before one backward pass."""
    x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    (call(x).square().sum() + call(x * 2 + 1).square().sum()).backward()
    return {"gradient of x": x.grad}


def training(call: Call, chain: ReversibleChain) -> dict[str, Any]:
    """Three steps of gradient descent."""
    losses = []
    for _ in range(3):
        chain.zero_grad()
        x = torch.randn(5, 12, dtype=torch.float64)
        loss = call(x).square().mean()
        loss.backward()
        losses.append(loss.detach())
        with torch.no_grad():
            for p in chain.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad
    return {"losses": torch.stack(losses)}
