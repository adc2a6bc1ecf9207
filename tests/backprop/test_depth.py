"""Long chains: marked slow, run by `tox -e slow`."""

from __future__ import annotations

import pytest
import torch

from revbench import build_model
from revbench.choices import STRATEGIES
from tests.backprop.chains import basic_chain, gradients, relative_difference
from tests.backprop.test_memory import peak_above_steady

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("blocks", [100, 300])
def test_gradients_of_long_chains(blocks: int) -> None:
    chain = basic_chain(blocks, 8, strategy="stored").double()
    x, weight = torch.randn(4, 8, 4, 4, dtype=torch.float64), torch.randn(4, 8, 4, 4, dtype=torch.float64)
    reference = gradients(chain, x, weight)
    for strategy in STRATEGIES[1:]:
        chain.strategy = strategy
        assert relative_difference(gradients(chain, x, weight), reference) < 1e-9, strategy


def test_memory_is_flat_to_200_blocks() -> None:
    peaks = [peak_above_steady(blocks, "reconstructed") for blocks in (9, 200)]
    assert peaks[1] <= 1.01 * peaks[0]


@pytest.mark.parametrize("seed", range(20))
def test_revnet_38_over_seeds(seed: int) -> None:
    torch.manual_seed(seed)
    model = build_model("revnet-38", image_size=8, strategy="stored").double()
    x, weight = torch.randn(8, 3, 8, 8).double(), torch.randn(8, 10).double()
    reference = gradients(model, x, weight)
    for strategy in STRATEGIES[1:]:
        model.set_strategy(strategy, "recomputed")
        assert relative_difference(gradients(model, x, weight), reference) < 1e-9
