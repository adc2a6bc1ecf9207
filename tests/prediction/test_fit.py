"""The largest batch and the deepest network, against predictions at and beside them."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from revbench.case import Case
from revbench.errors import UserError
from revbench.prediction import deepest, largest_batch, predict
from revbench.prediction.depth import deeper, depth_of
from revbench.prediction.estimates import estimate_all

MIB = 2**20
CHAIN = Case(model="revbench.peers:chain(kind=basic,blocks=2)", batch_size=4)


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
@pytest.mark.parametrize("limit", [40 * MIB, 1000 * MIB])
def test_the_next_batch_does_not_fit(strategy: str, limit: int) -> None:
    fit = largest_batch(CHAIN.replace(strategy=strategy), limit)
    assert fit.case is not None
    assert fit.checked
    peaks = [predict(fit.case.replace(batch_size=fit.value + more)).step.peak_bytes for more in (0, 1)]
    assert peaks[0] == fit.peak_bytes <= 0.9 * limit < peaks[1]


def test_one_item_may_be_too_few_for_a_batch_norm() -> None:
    fit = largest_batch(Case(model="resnet-50", image_size=32, device="cuda"), 2**30)
    assert fit.value > 2


class Flat(nn.Module):
    """As deep as it is called, on shared weights: its memory does not grow until 64."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.wide, self.linear = nn.Linear(192, 10), nn.Linear(10, 10 if depth < 64 else 4000)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x.flatten(1)) + self.linear(self.wide(x.flatten(1))).mean()


def flat(depth: int) -> nn.Module:
    """What a case names."""
    return Flat(depth)


def test_a_search_that_finds_no_growth_ends() -> None:
    with pytest.raises(UserError, match="does not grow"):
        deepest(Case(model=f"{__name__}:flat(depth=+3)", image_size=8), 2**30)


def test_nothing_fits() -> None:
    fit = largest_batch(CHAIN, 1000)
    assert (fit.case, fit.value, fit.checked) == (None, 0, True)
    assert fit.peak_bytes == predict(CHAIN.replace(batch_size=1)).step.peak_bytes


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_some_memory(limit: int) -> None:
    with pytest.raises(UserError, match="fits nothing"):
        largest_batch(CHAIN, limit)


def test_the_next_depth_does_not_fit() -> None:
    fit = deepest(CHAIN, 40 * MIB)
    assert fit.case is not None
    assert fit.case.model == f"revbench.peers:chain(kind=basic,blocks={fit.value})"
    assert depth_of(fit.case) == f"blocks {fit.value}"
    assert fit.checked
    peaks = [predict(deeper(CHAIN, fit.value + more)).step.peak_bytes for more in (0, 1)]
    assert peaks[0] <= 0.9 * 40 * MIB < peaks[1]


@pytest.mark.slow
def test_depths_beyond_prediction_are_extrapolated() -> None:
    fit = deepest(CHAIN.replace(strategy="reconstructed"), 50 * MIB)
    assert not fit.checked
    assert fit.value > 40
    assert fit.case is not None
    assert predict(fit.case).step.peak_bytes == pytest.approx(fit.peak_bytes, rel=0.002)


def test_networks_of_the_catalogue_grow_as_their_families_do() -> None:
    cifar, imagenet = deeper(Case(model="revnet-38"), 4), deeper(Case(model="resnet-101", image_size=64), 36)
    assert cifar == Case(model="revnet-38", depth=4)
    assert depth_of(cifar) == "50 layers, units 4-4-4"
    assert depth_of(imagenet) == "140 layers, units 3-4-36-3"
    assert depth_of(deeper(Case(model="revgpt-1m"), 31)) == "31 blocks"
    assert depth_of(deeper(Case(model="revnet-104"), 11)) == "104 layers, units 2-2-11-2"
    assert depth_of(deeper(Case(model="resnet-101"), 23)) == "101 layers, units 3-4-23-3"
    same = [predict(Case(model="revnet-38", batch_size=4)), predict(deeper(Case(model="revnet-38", batch_size=4), 3))]
    assert same[0].step == same[1].step


@pytest.mark.parametrize("model", ["torchvision.models:resnet18", "revbench.peers:chain(kind=basic)"])
def test_a_factory_must_say_how_deep_it_is(model: str) -> None:
    with pytest.raises(UserError, match="does not say how deep"):
        deepest(Case(model=model), MIB)


def test_several_models_and_strategies() -> None:
    found = estimate_all(["resnet-32", CHAIN.model], (), "kept", {"batch_size": 2})
    assert [(p.case.model, p.case.strategy) for p in found.predictions] == [
        *(("resnet-32", s) for s in ("stored", "checkpointed", "recursive")),
        *((CHAIN.model, s) for s in ("stored", "reconstructed", "checkpointed", "recursive")),
    ]
    assert found.batches == found.depths == {}


def test_what_fits_stands_beside_the_prediction() -> None:
    found = estimate_all([CHAIN.model], ("stored", "reconstructed"), "kept", {"batch_size": 2}, limit_bytes=64 * MIB)
    stored, reconstructed = (found.batches[p.case] for p in found.predictions)
    assert stored.value < reconstructed.value
    record = found.to_json()["predictions"][0]
    assert record["largest_batch"]["value"] == stored.value
    assert record["deepest"] is None


def test_strategies_of_a_network_without_a_chain() -> None:
    found = estimate_all(["torchvision.models:resnet18"], (), "kept", {"batch_size": 2, "image_size": 32})
    assert [p.case.strategy for p in found.predictions] == ["stored"]
    refused = estimate_all(["resnet-32"], ("stored", "torch_budget"), "kept", {"batch_size": 2})
    assert len(refused.predictions) == 1
    assert "compiled" in next(iter(refused.problems.values()))
