"""Arguments beside the activation reach every function, and their gradients come back, under every strategy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from revbench import reversible
from revbench.choices import STRATEGIES, TORCH_STRATEGIES
from tests.backprop.oracle import Pairs, assert_as_plain


class Attending(nn.Module):
    """Looks at a context through a mask; scales, settings and further contexts may be nested."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.value = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(
        self, x: Tensor, context: Tensor, *, mask: Tensor | None = None, extras: Any = None, gain: float = 1.0
    ) -> Tensor:
        scores = self.query(x) @ context.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(mask, -1e9)
        out = scores.softmax(-1) @ self.value(context) * gain
        if extras is not None:
            first, (second, name) = extras["pair"]
            out = out + first * second * {"half": 0.5, "whole": 1.0}[name]
        return torch.tanh(out)


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor, scale: Any = 1.0) -> Tensor:
        return torch.tanh(self.linear(x)) * scale


def attending() -> Pairs:
    return [(Attending(), Attending()) for _ in range(3)]


def mixed() -> Pairs:
    return [(Attending(), Mlp()) for _ in range(3)]


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, 7, 6, dtype=torch.float64, requires_grad=True)
    return x, context, torch.rand(2, 5, 7) < 0.3


def to_all(call: Any, chain: Any) -> dict[str, Any]:
    x, context, mask = tensors()
    used = context * 2  # a context that was computed, as an encoder's is
    y = call(x, used, mask=mask, gain=0.7)
    y.square().sum().backward()
    return {"y": y.detach(), "gradient of x": x.grad, "gradient of the context": context.grad}


def nested(call: Any, chain: Any) -> dict[str, Any]:
    x, context, _ = tensors()
    first = torch.randn(6, dtype=torch.float64, requires_grad=True)
    second = nn.Parameter(torch.randn(6, dtype=torch.float64))
    y = call(x, context=context, extras={"pair": [first, (second, "half")], "unused": None})
    y.square().sum().backward()
    return {"gradients": torch.cat((context.grad.flatten(), first.grad, second.grad))}  # type: ignore[union-attr]


def per_function(call: Any, chain: Any) -> dict[str, Any]:
    x, context, mask = tensors()
    scale = torch.rand(5, 1, dtype=torch.float64).requires_grad_()
    y = call(x, f_kwargs={"context": context, "mask": mask}, g_kwargs={"scale": scale})
    y.square().sum().backward()
    return {"gradients": torch.cat((context.grad.flatten(), scale.grad.flatten()))}  # type: ignore[union-attr]


def two_views(call: Any, chain: Any) -> dict[str, Any]:
    """The right way to do what an attribute set anew between two calls does."""
    x, context, mask = tensors()
    loss = sum(call(x, context, mask=m).square().sum() for m in (mask, ~mask))
    loss.backward()  # type: ignore[union-attr]
    return {"gradient of x": x.grad}


def needs_nothing(call: Any, chain: Any) -> dict[str, Any]:
    """Only the context needs gradient."""
    x, context, _ = tensors()
    chain.requires_grad_(False)
    call(x.detach(), context).square().sum().backward()
    return {"gradient of the context": context.grad}


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (attending, to_all),
        (attending, nested),
        (mixed, per_function),
        (attending, two_views),
        (attending, needs_nothing),
    ],
)
def test_arguments(make: Any, use: Any) -> None:
    assert_as_plain(make, use, split_dim=2)


def test_a_list_with_one_dict_for_each_block() -> None:
    chain = reversible([(Mlp(), Mlp()) for _ in range(3)]).double()
    x = torch.randn(4, 12, dtype=torch.float64)
    scales = [torch.rand((), dtype=torch.float64) for _ in range(3)]
    found = []
    for chain.strategy in STRATEGIES:
        y = chain(x, f_kwargs=[{"scale": scale} for scale in scales])
        found.append(y)
        assert torch.allclose(chain.inverse(y, f_kwargs=[{"scale": scale} for scale in scales]), x)
    for y in found[1:]:
        assert torch.equal(y, found[0])


@pytest.mark.parametrize("strategy", ["torch_checkpoint", "torch_selective"])
def test_pytorchs_own_ways_take_them_too(strategy: str) -> None:
    assert strategy in TORCH_STRATEGIES
    assert_as_plain(attending, to_all, strategies=[strategy], split_dim=2)


def test_kept_half_blocks_take_them_too() -> None:
    chain = reversible(attending(), split_dim=2).double()
    found = []
    for chain.kept_half_blocks in (0, 1, 4):
        torch.manual_seed(3)
        found.append(torch.cat([g.flatten() for g in to_all(chain, chain).values()]))
    assert torch.allclose(found[0], found[1])
    assert torch.allclose(found[0], found[2])


class ChangesItsMask(Mlp):
    def forward(self, x: Tensor, scale: Any = 1.0) -> Tensor:
        scale.mul_(0.5)
        return super().forward(x, scale)


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_mistakes_are_named(strategy: str) -> None:
    x = torch.randn(4, 12)
    chain = reversible([(Mlp(), Mlp()) for _ in range(3)], strategy=strategy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"f_kwargs must be one dict .* or a list of 3 dicts"):
        chain(x, f_kwargs=[{}])
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        chain(x, mask=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        reversible([(nn.Linear(6, 6), Mlp())], strategy=strategy)(x, scale=2.0)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="changes its input in place"):
        reversible([(ChangesItsMask(), Mlp())], strategy=strategy)(x, scale=torch.ones(6))  # type: ignore[arg-type]
    scale = torch.ones(6)
    y = chain(x, scale=scale)
    scale.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = chain(x, scale=scale)
    scale.data.mul_(2)
    with pytest.raises(RuntimeError, match="gave another value when backward ran it again"):
        y.sum().backward()


class Shared(Mlp):
    """Its parameter comes in as an argument, too."""

    def forward(self, x: Tensor, scale: Any = 1.0) -> Tensor:
        return torch.tanh(self.linear(x) @ scale)


def test_a_parameter_that_is_an_argument_too() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        call(x, scale=chain.blocks[0].f.linear.weight).square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(lambda: [(Shared(), Shared()) for _ in range(3)], use)


@pytest.mark.parametrize("empty", [(), [], {}])
def test_arguments_without_anything_in_them(empty: Any) -> None:
    class Demanding(Mlp):
        def forward(self, x: Tensor, skips: Any) -> Tensor:  # type: ignore[override]
            assert type(skips) is type(empty)
            return super().forward(x, 1.0 + len(skips))

    def use(call: Any, chain: Any) -> dict[str, Any]:
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        call(x, skips=empty).square().sum().backward()
        return {"gradient of x": x.grad}

    assert_as_plain(lambda: [(Demanding(), Demanding())], use)


class DropsGradients(Mlp):
    """Draws for the gradient alone: its values tell nothing."""

    def forward(self, x: Tensor, generator: Any = None) -> Tensor:  # type: ignore[override]
        y = super().forward(x)
        keep = (torch.rand(y.shape, generator=generator, dtype=y.dtype) < 0.5).to(y.dtype)
        return y * keep + (y * (1 - keep)).detach()


def test_a_generator_among_the_arguments() -> None:
    def use(call: Any, chain: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
        call(x, generator=generator).square().sum().backward()
        return {"gradient of x": x.grad, "next": torch.rand(3, generator=generator)}

    assert_as_plain(lambda: [(DropsGradients(), DropsGradients()) for _ in range(3)], use)


class FillsAList(Mlp):
    def forward(self, x: Tensor, aux: Any, scale: Any = 1.0) -> Tensor:  # type: ignore[override]
        y = super().forward(x, scale)
        aux.append(y.square().mean())
        return y


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
@pytest.mark.parametrize("others", [{}, {"scale": torch.ones(6)}])
def test_a_list_that_a_function_fills_is_refused(strategy: Any, others: dict[str, Any]) -> None:
    chain = reversible([(FillsAList(), FillsAList())], strategy=strategy)
    with pytest.raises(RuntimeError, match=r"(block 0's F|unit 0) changes a list or dict that it is called with"):
        chain(torch.randn(5, 12), aux=[], **others)
