"""Hooks act as under plain autograd, whoever sets them and when, or one error says why they can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_full_backward_hook, register_module_full_backward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.oracle import Linear, Pairs, assert_as_plain, once, three


def halved(module: nn.Module, gradients: Any, of_outputs: Any = None) -> Any:
    return tuple(None if g is None else 0.5 * g for g in gradients)


def on_layers(chain: Any, fired: list[int]) -> None:
    for i, block in enumerate(chain.blocks):
        block.f[0].register_full_backward_hook(lambda m, gi, go: (fired.append(1), halved(m, gi))[1])
        if i == 1:
            block.f[0].register_full_backward_pre_hook(halved)
            block.g.register_full_backward_hook(halved)


def sequences() -> Pairs:
    return [(nn.Sequential(nn.Linear(6, 6), nn.Tanh()), nn.Linear(6, 6)) for _ in range(3)]


def test_backward_hooks_on_plain_layers() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        fired: list[int] = []
        on_layers(chain, fired)
        return once(call, chain) | {"fired": len(fired)}

    assert_as_plain(sequences, use)


@pytest.mark.parametrize(
    "register",
    [
        register_module_full_backward_hook,
        register_module_full_backward_pre_hook,
    ],
)
def test_backward_hooks_on_all_modules(register: Any) -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        layers = [block.f[0] for block in chain.blocks]
        handle = register(lambda m, *gradients: halved(m, gradients[0]) if m in layers else None)
        try:
            return once(call, chain)
        finally:
            handle.remove()

    assert_as_plain(sequences, use)


def test_hooks_of_several_gradients_and_of_accumulation_run_once() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        seen: list[Any] = []
        parameters = list(chain.parameters())
        handles = [p.register_post_accumulate_grad_hook(lambda p: seen.append(p.shape)) for p in parameters]
        handles.append(torch.autograd.graph.register_multi_grad_hook(parameters, lambda grads: seen.append(len(grads))))  # type: ignore[arg-type]
        found = once(call, chain)
        for handle in handles:
            handle.remove()
        return found | {"seen": sorted(map(str, seen))}

    assert_as_plain(sequences, use)


class Own(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


def hooking_the_gradient(module: nn.Module, args: Any, out: Tensor) -> None:
    out.register_hook(lambda g: 0.5 * g)


@pytest.mark.parametrize(
    "hook",
    [
        lambda m: m.register_full_backward_pre_hook(halved),
        lambda m: m.register_full_backward_hook(halved),
        lambda m: m.register_forward_hook(hooking_the_gradient),
    ],
)
@pytest.mark.parametrize("make", [sequences, three(Own)])
def test_hooks_that_come_between_forward_and_backward_come_too_late(make: Any, hook: Callable[[Any], None]) -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        y = call(x)
        for block in chain.blocks:
            hook(block.f)
        y.square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(make, use)


class HooksItsWeight(Own):
    """At its first call, as adapters and gradient scalers do."""

    done = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.done:
            self.linear.weight.register_hook(lambda g: 0.1 * g)
            self.done = True
        return super().forward(x)


def test_a_hook_that_a_function_sets_on_its_own_weight_acts_once() -> None:
    assert_as_plain(three(HooksItsWeight), once)


class HooksItsInput(Own):
    def forward(self, x: Tensor) -> Tensor:
        x.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return super().forward(x)


class RetainsItsInput(Own):
    def forward(self, x: Tensor) -> Tensor:
        x.retain_grad()
        return super().forward(x)


class HooksACopy(Own):
    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        x.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return super().forward(x)


@pytest.mark.parametrize("kind", [HooksItsInput, RetainsItsInput])
def test_the_gradient_of_its_input_is_not_a_functions_to_hook(kind: type[nn.Module]) -> None:
    chain = reversible([(kind(), Own())])
    with pytest.raises(
        RuntimeError, match=r"block 0's F hooks the gradient of its input .*hook a copy \(x.clone\(\)\)"
    ):
        chain(torch.randn(5, 12, requires_grad=True))


def test_nor_is_it_where_a_segment_ends() -> None:
    assert_as_plain(three(HooksItsInput), once, strategies=("checkpointed", "recursive"))


def test_that_of_a_copy_is() -> None:
    assert_as_plain(three(HooksACopy), once)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_who_counts_operations_may_hook_every_input(strategy: Any) -> None:
    chain = reversible([(Own(), Own())], strategy=strategy)
    x = torch.randn(5, 12, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        chain(x).sum().backward()
    product = 2 * 5 * 6 * 6
    assert counter.get_total_flops() == (2 + 2 + 4) * product  # forward, forward again, two products each in backward
    found, x.grad = x.grad, None
    chain.strategy = "stored"
    chain(x).sum().backward()
    torch.testing.assert_close(found, x.grad)
