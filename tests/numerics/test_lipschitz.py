"""Lipschitz estimates against dense Jacobians, and what they predict against what is measured."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import revbench
from revbench.case import Case
from revbench.numerics.lipschitz import stretch
from revbench.numerics.stability import ROUNDING, block_stabilities
from revbench.probes.lipschitz import measure_lipschitz
from revbench.workload import build_workload


def half() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 4))


def test_of_a_linear_map() -> None:
    matrix = torch.randn(30, 30, dtype=torch.float64)
    found = stretch(lambda x: x @ matrix.T, torch.randn(30, dtype=torch.float64), iterations=500, tolerance=1e-12)
    assert found.lipschitz == pytest.approx(torch.linalg.matrix_norm(matrix, 2).item(), rel=1e-6)
    many = [stretch(m.mv, torch.zeros(200).double()).gain for m in torch.randn(20, 200, 200).double()]
    assert sum(many) / 20 == pytest.approx(math.sqrt(200), rel=0.02)  # |J|_F / sqrt(n) of such a matrix


def test_of_a_constant() -> None:
    found = stretch(lambda x: torch.ones(3), torch.randn(3))
    assert (found.lipschitz, found.gain) == (0.0, 0.0)


def test_of_blocks_against_the_dense_jacobian() -> None:
    chain = revbench.reversible([(half(), half()) for _ in range(3)], strategy="stored").double()
    x = torch.randn(1, 8, dtype=torch.float64)
    found = block_stabilities(chain, x, autocast="none", epsilon=2.0**-52)
    assert list(found) == ["blocks.0", "blocks.1", "blocks.2"]
    state = x.chunk(2, 1)
    for name, stability in found.items():
        block = chain.get_submodule(name)
        jacobian = torch.autograd.functional.jacobian(
            lambda z, block=block: torch.cat(block(*z.chunk(2, 1)), 1), torch.cat(state, 1)
        )
        singular = torch.linalg.svdvals(jacobian.reshape(8, 8))
        assert stability.inverse.lipschitz == pytest.approx(1 / singular.min().item(), rel=0.05)
        left = torch.cat(block(*state), 1).norm() / torch.cat(state, 1).norm()
        assert stability.inverse_condition == pytest.approx(left.item() / singular.min().item(), rel=0.05)
        of_f = torch.autograd.functional.jacobian(block.f, state[1]).reshape(4, 4)
        assert stability.functions[0].lipschitz == pytest.approx(torch.linalg.matrix_norm(of_f, 2).item(), rel=0.05)
        state = block(*state)


class Fused(nn.Module):
    """Attention and a recurrent layer, whose fused kernels have no forward derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.lstm(self.attention(x, x, x, need_weights=False)[0])[0]
        return found


def test_of_fused_functions() -> None:
    chain = revbench.reversible([(Fused(), Fused())], split_dim=2, strategy="stored")
    x = torch.randn(2, 3, 8)
    (stability,) = block_stabilities(chain, x, autocast="none", epsilon=2.0**-23).values()
    f = chain.get_submodule("blocks.0.f")
    a = x.chunk(2, 2)[1]
    dense = torch.autograd.functional.jacobian(f, a).reshape(24, 24)
    largest = torch.linalg.matrix_norm(dense, 2).item()
    assert (
        0.85 * largest < stability.functions[0].lipschitz < 1.001 * largest
    )  # many directions stretch alike: from below


@given(st.integers(0, 2**31))
def test_the_rounding_of_logarithmic_numbers(seed: int) -> None:
    x = torch.exp(10 * torch.rand(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    one = torch.exp2(torch.log2(x) - torch.floor(torch.log2(x)))  # the mantissas: one binade, so that none outweighs
    error = one.float().double() - one
    assert (error.norm() / one.norm()).item() == pytest.approx(ROUNDING * 2**-23, rel=0.05)


def assert_predicted(case: Case, *, blocks: int) -> None:
    """Block by block within a factor of 4 of what is measured, and below the worst case."""
    from revbench.probes.drift import measure_drift

    predicted = measure_lipschitz(build_workload(case), progress=lambda _: None)
    measured = measure_drift(build_workload(case), draws=1, progress=lambda _: None)
    found = dict(zip(measured.series["name"], measured.series["activation_error"], strict=True))
    columns = ("name", "predicted_activation_error", "bounded_activation_error")
    compared = 0
    for name, error, bound in zip(*(predicted.series[key] for key in columns), strict=True):
        if error:  # else nothing of the block is brought back, or it is kept
            assert error / 4 < found[name] < error * 4, (name, error, found[name])  # type: ignore[operator]
            assert found[name] < bound  # type: ignore[operator]
            compared += 1
        else:
            assert not found.get(name)
    assert compared == blocks


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_prediction_is_of_the_size_that_is_measured(dtype: str) -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=8, dtype=dtype, strategy="reconstructed")
    assert_predicted(case, blocks=7)


SMALL = "revbench.peers:chain(kind=basic,blocks=4,coupling={})"


@pytest.mark.parametrize(
    ("coupling", "dtype"),
    [
        ("affine:tanh", "float32"), ("affine:sigmoid", "float64"), ("hamiltonian:0.5", "float32"), ("momentum:0.9", "float64"),
        ("momentum:0.5", "float32"), ("midpoint:0.5", "float32"), ("midpoint:0.1", "float64"), ("leapfrog:0.3", "float32"),
        ("leapfrog:0.3", "float64"),
    ],
)  # fmt: skip
def test_the_prediction_of_other_couplings(coupling: str, dtype: str) -> None:
    case = Case(model=SMALL.format(coupling), image_size=8, batch_size=8, dtype=dtype, strategy="reconstructed")
    kept = 1 if coupling.startswith(("midpoint", "leapfrog")) else 0  # what block 0 brings back
    assert_predicted(case, blocks=4 - kept)


@pytest.mark.parametrize("coupling", ["additive", "hamiltonian:0.5", "momentum:0.9", "midpoint:0.3", "leapfrog:0.5"])
def test_the_prediction_of_a_language_model(coupling: str) -> None:
    case = Case(
        model="revgpt-1m", coupling=coupling, depth=6, sequence_length=16, batch_size=2, strategy="reconstructed"
    )
    assert_predicted(case, blocks=6 if coupling in ("additive", "hamiltonian:0.5", "momentum:0.9") else 5)


def test_functions_that_a_block_has_not_are_null_with_the_reason() -> None:
    from tests.numerics.networks_of_one_function import network

    case = Case(model=f"{network.__module__}:network", batch_size=4)
    found = measure_lipschitz(build_workload(case), progress=lambda _: None)
    assert found.metrics["lipschitz_g"] is None
    assert found.metrics["lipschitz_g_reason"] == "a block of this network has one function"
    assert found.series["lipschitz_g"] == [None] * 3
    assert found.series["predicted_activation_error"][0] is None
    assert found.series["predicted_activation_error"][1] == 0.0  # kept


def test_a_model_without_a_reversible_block() -> None:
    with pytest.raises(NotImplementedError, match="no reversible block"):
        measure_lipschitz(build_workload(Case(model="resnet-32", image_size=8, batch_size=2)), progress=lambda _: None)


def test_it_leaves_no_trace() -> None:
    chain = revbench.reversible([(nn.Sequential(nn.BatchNorm1d(4), half()), half())], strategy="stored")
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    state = torch.get_rng_state()
    block_stabilities(
        chain, torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), autocast="none", epsilon=1e-7
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in chain.state_dict().items())
