"""What is said of a gradient, and what it is said from: each number against a closed form or a count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import revbench
from revbench.case import Arithmetic
from revbench.numerics.components import compare_components
from revbench.numerics.gradients import compare_gradients
from revbench.numerics.part_table import PartTable
from revbench.numerics.verdict import judge, strange_reference

PARTS: dict[str, list[Any]] = {
    "level": ["block", "block"], "name": ["a", "b"], "relative_error": [1e-6, 1e-6], "stored_relative_error": [1e-6, 1e-6]
}  # fmt: skip


def said(
    parts: dict[str, list[Any]] = PARTS, *, strategy: str = "reconstructed", **samples: list[float]
) -> tuple[str, str]:
    found = judge(samples, PartTable(parts), strategy, Arithmetic("float32"), (), None)
    return found.word, found.words


def drawn(error: list[float], stored: list[float], noise: list[float] | None = None) -> dict[str, list[float]]:
    found = {
        "relative_error": error, "stored_relative_error": stored,
        "amplification": [a / b for a, b in zip(error, stored, strict=True)],
    }  # fmt: skip
    if noise is not None:
        found |= {"noise": noise, "error_over_noise": [a / b for a, b in zip(error, noise, strict=True)]}
    return found


def test_an_error_that_no_draw_shows_beside_a_batch_is_safe() -> None:
    word, words = said(**drawn([0.01, 0.02], [1e-4, 1e-4], [0.5, 0.8]))
    assert word == "safe"
    assert words == (
        "safe: no training would see it. The whole error is 1.5 % of the gradient (stored: 1.0e-04), at most 2.5 % of a batch's"
        " noise (which is 65 % of the gradient)"
    )


def test_the_worst_of_the_draws_counts() -> None:
    assert said(**drawn([0.01, 0.09, 0.01], [1e-4] * 3, [0.5] * 3))[0] == "caution"
    assert said(**drawn([0.01, 0.4, 0.01], [1e-4] * 3, [0.5] * 3))[0] == "unsafe"


def test_an_error_that_stored_has_too_is_not_called_safe() -> None:
    word, words = said(**drawn([0.57, 0.58], [0.56, 0.57], [0.97, 0.96]))
    assert word == "as stored"
    assert words.startswith(
        "as stored: at most twice stored's error, and a training would see that of stored, too. The whole error is 57.5 %"
    )


def test_without_noise_only_stored_can_be_compared_with() -> None:
    assert said(**drawn([2e-7], [1.5e-7]))[0] == "as stored"
    word, words = said(**drawn([2e-5], [1.5e-7]))
    assert word == "caution"
    assert "nobody measured the noise of a batch" in words


def test_a_block_that_is_lost_is_named() -> None:
    parts = {**PARTS, "relative_error": [0.7, 0.9]}
    word, words = said(parts, **drawn([0.3], [1e-4], [0.9]))
    assert word == "unsafe"
    assert "loses the gradient at block b" in words


def test_the_three_numbers_are_all_there() -> None:
    parts = {
        "smooth_relative_error": [1e-5, 3e-5], "smooth_amplification": [10.0, 20.0], "flips": [3.0, 1.0],
        "stored_flips": [1.0, 0.0], "expected_flips": [2.0, 2.5], "smooth_stored_relative_error": [1e-6, 1e-6],
        "smooth_error_epsilons": [84.0, 252.0],
    }  # fmt: skip
    _, words = said(**drawn([0.01, 0.02], [1e-4, 1e-4], [0.5, 0.8]), **parts)
    assert words.endswith(
        "; rounding alone 2.0e-05, 15 × stored's; flips 2 a step (expected from the activations' errors: 2.25), of stored 0.5"
    )


class Quadratic(nn.Module):
    """Its loss is half the square of a norm, so its gradient is linear in the weights: a condition number of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(50, 40))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.mean().sign().abs()


def test_the_condition_number_of_a_linear_gradient_is_one() -> None:
    drift = compare_gradients(Quadratic(), lambda out, _: out.square().sum() / 2, torch.ones(3), None)
    assert drift.condition == pytest.approx(1.0, rel=1e-4)


def test_noise_is_the_spread_of_the_gradient_over_batches() -> None:
    """A linear model whose gradient is the mean input: normal, of variance 1 / batch in each of 400 directions."""
    model = nn.Linear(400, 1, bias=False)
    batch, mean = 25, 0.5
    batches = [(mean + torch.randn(batch, 400), None) for _ in range(4)]
    drift = compare_gradients(model, lambda out, _: out.mean(), *batches[0], other_batches=batches[1:])
    expected = math.sqrt(400 / batch) / math.sqrt(400 * (mean**2 + 1 / batch))
    assert drift.noise == pytest.approx(expected, rel=0.1)
    assert compare_gradients(model, lambda out, _: out.mean(), *batches[0]).noise is None


def test_components_in_units_of_the_last_place() -> None:
    reference = {"a": torch.tensor([1.0, 1.5, 2.0, 0.0]), "b": torch.tensor([[-3.0]])}
    epsilon = 2.0**-23
    found = {"a": torch.tensor([1.0 + epsilon, 1.5, 2.0 + 8 * epsilon, 7.0]), "b": torch.tensor([[3.0]])}
    components = compare_components(found, reference)
    assert components is not None
    assert components.wrong_sign_share == 0.25
    assert components.median == epsilon  # of 0, 1, 4 epsilons and of 3
    assert components.q99 == 3.0
    assert compare_components(found, {name: torch.zeros_like(g) for name, g in reference.items()}) is None


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.slow)])
def test_as_many_units_flip_as_their_inputs_errors_predict(dtype: str) -> None:
    """Ten thousands in bfloat16, some in float32 where there are millions of units; under stored and reconstructed."""
    width, count = (64, 256) if dtype == "bfloat16" else (256, 16_384)

    def half() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width))

    def network() -> nn.Module:
        return nn.Sequential(revbench.reversible([(half(), half()) for _ in range(4)]), nn.Linear(2 * width, 10))

    def batch() -> tuple[Tensor, Tensor]:
        return torch.randn(count, 2 * width), torch.randint(10, (count,))

    samples = revbench.drift(network, batch, loss=F.cross_entropy, dtype=dtype, draws=3).samples()
    for kind in ("flips", "stored_flips"):
        expected = sum(samples[f"expected_{kind}"])
        assert expected > 5
        assert sum(samples[kind]) == pytest.approx(
            expected, rel=0.2 if dtype == "bfloat16" else 4 / math.sqrt(expected)
        )


def test_pooling_windows_are_not_predicted() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 2))
    batch = torch.randn(4, 1, 6, 6), torch.randint(2, (4,))
    assert compare_gradients(model, F.cross_entropy, *batch).expected_flips is None


@pytest.mark.parametrize("left_out", ["smooth_relative_error", "smooth_error_epsilons", "smooth_stored_relative_error"])
def test_a_row_that_lacks_some_samples_is_judged_by_the_others(left_out: str) -> None:
    """A stranger's row may hold any of them, and zeros."""
    samples = {name: [1e-6] for name in ("relative_error", "smooth_relative_error", "smooth_stored_relative_error")}
    samples["smooth_error_epsilons"] = [0.0]
    del samples[left_out]
    assert strange_reference(samples) is None
