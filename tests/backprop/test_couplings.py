"""Every coupling against its formula in plain autograd, in float64: values, gradients, inverse, arguments, several streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from revbench import reversible
from revbench.choices import STRATEGIES
from tests.backprop.chains import relative_difference
from tests.backprop.formulas import (
    FORMULAS,
    PAIRS,
    Function,
    State,
    assert_close,
    chain_of,
    functions,
    left_behind,
    waves,
)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_pair_goes_through_a_coupling_as_its_formula_says(name: str, strategy: str) -> None:
    formula, *_ = FORMULAS[name]
    expected_blocks, chain = nn.ModuleList(), chain_of(name, strategy)
    blocks = functions(name)
    for block in blocks:
        expected_blocks.extend(block if isinstance(block, tuple) else (block,))
    expected_blocks.double()
    ours, theirs = ([waves(5, 6 + i)[:, :6].clone().requires_grad_() for i in range(2)] for _ in range(2))
    expected = left_behind(lambda: formula(blocks, tuple(theirs)), theirs, expected_blocks)
    found = left_behind(lambda: chain(tuple(ours)), ours, chain)
    assert_close(found, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FORMULAS)
def test_one_tensor_goes_through_a_coupling_as_its_formula_says(name: str, strategy: str) -> None:
    _, formula, begin, end = FORMULAS[name]
    width = 12 if name in PAIRS else 6
    chain, blocks = chain_of(name, strategy), functions(name)
    modules = nn.ModuleList(m for block in blocks for m in (block if isinstance(block, tuple) else (block,))).double()
    ours, theirs = (waves(5, width).requires_grad_() for _ in range(2))
    expected = left_behind(lambda: end(formula(blocks, begin(theirs))), [theirs], modules)
    found = left_behind(lambda: chain(ours), [ours], chain)
    assert_close(found, expected)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_inverse_brings_back_what_entered(name: str) -> None:
    chain = chain_of(name).eval()
    pair = tuple(torch.randn(5, 6, dtype=torch.float64) for _ in range(2))
    back = chain.inverse(chain(pair))
    assert all(relative_difference([x], [y]) < 1e-9 for x, y in zip(back, pair, strict=True))
    if name in PAIRS:
        x = torch.randn(5, 12, dtype=torch.float64)
        assert relative_difference([chain.inverse(chain(x))], [x]) < 1e-12
    else:
        with pytest.raises(TypeError, match="needs both streams; call the chain and its inverse with a pair"):
            chain.inverse(torch.randn(5, 6, dtype=torch.float64))


@pytest.mark.parametrize("name", FORMULAS)
def test_arguments_reach_the_functions_of_every_coupling(name: str) -> None:
    """A mask, a context that needs gradient, and a parameter of the caller's, by keyword."""

    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy)
        width = 12 if name.startswith("affine") else 6
        scale = torch.linspace(0.5, 1.5, width, dtype=torch.float64).requires_grad_()
        mask = torch.arange(5 * width).view(5, width) % 3 == 0
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).requires_grad_()
        chain(x, scale=scale, mask=mask).square().sum().backward()
        return [x.grad, scale.grad, *(p.grad for p in chain.parameters())]

    expected = gradients("stored")
    for strategy in STRATEGIES[1:]:
        assert relative_difference(gradients(strategy), expected) < 1e-9


def three_streams(blocks: Sequence[Any], state: State) -> State:
    x, y, z = state
    for f, g, h in blocks:
        x = x + f(y, z)
        y = y + g(z, x)
        z = z + h(x, y)
    return x, y, z


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("whole", [True, False])
def test_three_streams_take_turns(strategy: Any, whole: bool) -> None:
    torch.manual_seed(0)
    blocks = [tuple(Function() for _ in range(3)) for _ in range(3)]
    chain = reversible(blocks, strategy=strategy).double()

    def left(call: Callable[[Any], Any]) -> list[Tensor | None]:
        chain.zero_grad()
        torch.manual_seed(2)
        x = torch.randn(5, 18, dtype=torch.float64).requires_grad_()
        y = call(x if whole else tuple(x.split(6, 1)))
        y = y if isinstance(y, Tensor) else torch.cat(y, 1)
        (y * y.detach().sin()).sum().backward()
        return [y, x.grad, *(p.grad for p in chain.parameters())]

    expected = left(lambda x: three_streams(blocks, tuple(x.split(6, 1)) if whole else x))
    assert relative_difference(left(chain), expected) < 1e-9


@pytest.mark.parametrize("kept", range(6))
@pytest.mark.parametrize("name", FORMULAS)
def test_kept_half_blocks(name: str, kept: int) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy, blocks=3)
        chain.kept_half_blocks = kept
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).requires_grad_()
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_of_one_stream_and_frozen_functions(name: str, which: int) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy)
        for parameter in list(chain.parameters())[:9]:
            parameter.requires_grad_(False)
        torch.manual_seed(1)
        pair = [torch.randn(5, 6, dtype=torch.float64) for _ in range(2)]
        pair[which].requires_grad_()
        chain(tuple(pair))[which].square().sum().backward()
        return [pair[which].grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


@given(
    name=st.sampled_from(["additive", "affine:sigmoid", "affine", "hamiltonian", "momentum", "midpoint", "leapfrog"]),
    blocks=st.integers(1, 5),
    kept=st.integers(0, 4),
    streams=st.integers(2, 4),
    seed=st.integers(0, 2**31),
    frozen=st.sets(st.integers(0, 40)),
    autocast=st.booleans(),
)
def test_random_chains(
    name: str, blocks: int, kept: int, streams: int, seed: int, frozen: set[int], autocast: bool
) -> None:
    whole = name in ("momentum", "midpoint", "leapfrog")

    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(seed)
        returns = 12 if name.startswith("affine") else 6
        count = 1 + streams % 2 if whole else streams
        made = [[Function(returns=returns) for _ in range(count)] for _ in range(blocks)]
        chain = reversible(made, coupling=name, strategy=strategy).double()
        chain.kept_half_blocks = kept
        for i, parameter in enumerate(chain.parameters()):
            parameter.requires_grad_(i not in frozen)
        x = torch.randn(4, 6 if whole else 6 * streams, dtype=torch.float64).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = chain(x)
        y.square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    # Under autocast products are of bfloat16, whose rounding a reconstructed input moves.
    assert relative_difference(gradients("reconstructed"), gradients("stored")) < (0.1 if autocast else 1e-9)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", FORMULAS)
def test_on_a_gpu(name: str) -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        chain = chain_of(name, strategy).cuda()
        torch.manual_seed(1)
        x = torch.randn(5, 12 if name in PAIRS else 6, dtype=torch.float64).cuda().requires_grad_()
        torch.manual_seed(2)
        chain(x).square().sum().backward()
        return [x.grad, *(p.grad for p in chain.parameters())]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9


class Wrapped(nn.Module):
    """What wraps a block, as sharding and compilation do."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.block(*args, **kwargs)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["additive", "midpoint:0.3"])
def test_arguments_reach_a_block_that_is_wrapped(name: str, strategy: str) -> None:
    chain = chain_of(name, strategy).eval()
    x = waves(5, 12 if name in PAIRS else 6)
    mask = torch.arange(30).view(5, 6) % 2 == 0
    expected = chain(x, mask=mask).detach()
    chain.blocks[0] = Wrapped(chain.blocks[0])
    assert relative_difference([chain(x, mask=mask).detach()], [expected]) < 1e-12


def test_kept_half_blocks_need_no_inverse() -> None:
    def chain(strategy: Any) -> Any:
        torch.manual_seed(0)
        made = reversible(
            [(nn.Linear(6, 12), nn.Linear(6, 12)) for _ in range(2)], coupling="affine:exp", strategy=strategy
        )
        with torch.no_grad():
            made.blocks[1].g.bias[:6] = -200.0  # type: ignore[union-attr,index]
        made.kept_half_blocks = 1
        return made.double()

    x = waves(5, 12)
    assert torch.equal(chain("reconstructed")(x), chain("stored")(x))


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_complex_streams_are_scaled_too() -> None:
    def gradients(strategy: Any) -> list[Tensor | None]:
        torch.manual_seed(0)
        pairs = [(nn.Linear(3, 6), nn.Linear(3, 6)) for _ in range(3)]
        chain = reversible(pairs, coupling="affine", strategy=strategy).to(torch.complex128)
        chain(torch.complex(waves(5, 6), waves(5, 6).cos())).abs().sum().backward()
        return [torch.view_as_real(p.grad) for p in chain.parameters() if p.grad is not None]

    assert relative_difference(gradients("reconstructed"), gradients("stored")) < 1e-9
