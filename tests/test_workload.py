from __future__ import annotations

import pytest
import torch

import revbench
from revbench.case import Case
from revbench.errors import UserError
from revbench.workload import build_workload

SMALL = Case(model="revnet-38", image_size=8, batch_size=4)


def test_weights_and_batches_are_the_same_in_every_dtype_and_strategy() -> None:
    base = build_workload(SMALL)
    for changes in ({"dtype": "float64"}, {"strategy": "recursive"}, {"memory_format": "channels_last"}):
        other = build_workload(SMALL.replace(**changes))
        for a, b in zip(base.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b.float())
        assert torch.equal(base.batch(3)[0], other.batch(3)[0].float())
    assert not torch.equal(base.batch(0)[0], base.batch(1)[0])
    other_seed = build_workload(SMALL.replace(seed=1))
    assert not torch.equal(next(base.model.parameters()), next(other_seed.model.parameters()))


def test_the_case_is_obeyed() -> None:
    w = build_workload(
        SMALL.replace(
            memory_format="channels_last", optimizer="adamw", strategy="recursive", nonreversible="recomputed"
        )
    )
    assert w.batch()[0].is_contiguous(memory_format=torch.channels_last)
    assert isinstance(w.optimizer, torch.optim.AdamW)
    assert w.model.strategy == "recursive"
    assert w.model.nonreversible == "recomputed"
    assert build_workload(SMALL.replace(autocast="bfloat16")).forward(*w.batch()).isfinite()


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
@pytest.mark.parametrize("number", [1, 17, 10_000_019])
def test_the_null_differs_by_one_unit_in_the_last_place_of_one_weight(memory_format: str, number: int) -> None:
    """The same one in whatever order weights lie in memory."""
    case = SMALL.replace(memory_format=memory_format)
    base, null = (next(build_workload(c).model.parameters()) for c in (case, case.replace(ulp=number)))
    flat, moved = base.detach().flatten(), null.detach().flatten()
    place = number % len(flat)
    assert (flat != moved).nonzero().tolist() == [[place]]
    assert moved[place] == torch.nextafter(flat[place], torch.tensor(torch.inf))


def test_weight_decay_is_on_weights_only() -> None:
    w = build_workload(SMALL)
    decayed, rest = w.optimizer.param_groups
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in rest["params"]} == {1}
    assert (decayed["weight_decay"], rest["weight_decay"], decayed["momentum"]) == (2e-4, 0.0, 0.9)


def test_the_gradient_is_before_weight_decay_and_of_this_batch_alone() -> None:
    w = build_workload(SMALL)
    first = {n: g.clone() for n, g in w.gradient(*w.batch()).items()}
    w.gradient(*w.batch(1))
    again = w.gradient(*w.batch())
    assert first.keys() == dict(w.model.named_parameters()).keys()
    for name, g in again.items():
        assert torch.allclose(g, first[name], atol=1e-6)


def plain() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))


def two_chains() -> torch.nn.Module:
    def chain() -> torch.nn.Module:
        return revbench.reversible([(torch.nn.Identity(), torch.nn.Identity())])

    return torch.nn.Sequential(chain(), torch.nn.ReLU(), chain())


def test_factories() -> None:
    w = build_workload(Case(model=f"{__name__}:plain", image_size=8, batch_size=2, num_classes=4))
    assert w.batch()[0].shape == (2, 3, 8, 8)
    assert w.batch()[1].max() < 4
    chains = build_workload(Case(model=f"{__name__}:two_chains", strategy="checkpointed")).model
    assert [m.strategy for m in chains if hasattr(m, "strategy")] == ["checkpointed"] * 2
    with pytest.raises(UserError, match="no revbench"):
        build_workload(Case(model=f"{__name__}:plain", strategy="checkpointed"))
