"""What is changed between forward and backward does not matter, or is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear, assert_as_plain, three

RECOMPUTING = STRATEGIES[1:]


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 6))


def changed(change: Callable[[Any], None]) -> Any:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        old = dict(chain.named_parameters())
        change(chain)
        y.square().sum().backward()
        return {"gradient of x": x.grad} | {f"gradient of old {name}": p.grad for name, p in old.items()}

    return use


def settings(chain: Any) -> None:
    for module in chain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.9
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 0.7
        if isinstance(module, nn.LayerNorm):
            module.eps = 1.0


def layer(chain: Any) -> None:
    chain.blocks[1].f[0] = nn.Linear(6, 8).double()


def activation(chain: Any) -> None:
    chain.blocks[1].f[1] = nn.Tanh()


def assign(chain: Any) -> None:
    chain.load_state_dict({name: value * 2 for name, value in chain.state_dict().items()}, assign=True)


def new_hook(chain: Any) -> None:
    chain.blocks[1].f[0].register_forward_hook(lambda module, args, out: out * 100)


def mode(chain: Any) -> None:
    chain.eval()


@pytest.mark.parametrize("change", [settings, layer, activation, assign, new_hook, mode])
def test_changes_between_forward_and_backward_do_not_matter(change: Any) -> None:
    assert_as_plain(three(half), changed(change))


def test_hooks_that_are_removed_before_backward_still_count() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        handle = chain.blocks[1].f.register_forward_hook(lambda module, args, out: out * 3)
        before = chain.blocks[0].g[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        handle.remove()
        before.remove()
        y.square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(three(half), use)


def test_data_that_is_replaced_before_backward_is_refused() -> None:
    for strategy in RECOMPUTING:
        chain = reversible(three(half)(), strategy=strategy)
        y = chain(torch.randn(5, 12))
        weight = chain.blocks[2].g[4].weight
        weight.data = weight.data * 2
        with pytest.raises(RuntimeError, match=r"data of parameter 'weight' of (block 2's G|unit \d) .*\.data"):
            y.sum().backward()


class Typed(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * torch.tensor([1.0, 1 / 3] * 3)  # of the default dtype


class Doubling(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out * 2 if func is torch.tanh else out


def test_the_default_dtype_and_modes_of_forward_are_those_of_backward() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        torch.set_default_dtype(torch.float64)
        try:
            with Doubling():
                y = call(x)
        finally:
            torch.set_default_dtype(torch.float32)
        y.square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(three(Typed), use)


# Between two calls, after which what a plain function is made of is known


def order(f: Any) -> None:
    first = f[0]
    del f._modules["0"]
    f._modules["0"] = first


def untied(f: Any) -> None:
    f[1].weight = nn.Parameter(f[1].weight.detach().clone())


def one_number(f: Any) -> None:
    f[3].running_mean = f[3].running_mean + 0.0


@pytest.mark.parametrize("change", [order, untied, one_number])
def test_changes_between_two_calls_are_noticed(change: Any) -> None:
    def plain_half() -> nn.Module:
        half = nn.Sequential(
            nn.Linear(6, 6), nn.PReLU(), nn.Unflatten(1, (1, 6)), nn.BatchNorm1d(1), nn.Flatten(), nn.PReLU()
        )
        half[5].weight = half[1].weight  # type: ignore[assignment]
        return half.eval()

    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        call(x).square().sum().backward()
        for block in chain.blocks:
            change(block.f)
        call(x).square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(three(plain_half), use)


def test_a_weight_that_is_replaced_while_backward_runs() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        old = chain.blocks[0].f.weight

        def replace(gradient: Tensor) -> None:
            chain.blocks[0].f.weight = nn.Parameter(old.detach().clone())

        y.register_hook(replace)
        last = chain.blocks[2].g.weight.register_hook(replace)
        y.square().sum().backward()
        last.remove()
        return {"gradient of x": x.grad, "gradient of the old weight": old.grad}

    assert_as_plain(three(lambda: nn.Linear(6, 6)), use)
