"""Batch norm over several processes: its formula against the whole batch, the processes played by slices."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from revbench.case import Case
from revbench.models import synchronised
from revbench.models.synchronised import SynchronisedBatchNorm, synchronise_batch_norm
from revbench.workload import build_workload


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5), (8, 3, 4, 5)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_two_halves_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], momentum: float | None
) -> None:
    """Gradients are compared with real processes in `tests.training.test_torchrun`."""
    x = 1e4 + torch.randn(shape, dtype=torch.float64)  # far from 0: a difference of squares would cancel
    whole = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(3, momentum=momentum).double()
    nn.init.normal_(whole.weight)
    nn.init.normal_(whole.bias)
    ours = SynchronisedBatchNorm(3, momentum=momentum).double()
    ours.load_state_dict(whole.state_dict())
    expected = whole(x)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    addends: list[Tensor] = []
    for rank in (0, 1):  # what each would add to the sum
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(synchronised, "summed", lambda slots: addends.append(slots.detach()) or slots)
        copy.deepcopy(ours)(x[4 * rank : 4 * rank + 4])
    for rank in (0, 1):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        monkeypatch.setattr(synchronised, "summed", lambda slots, rank=rank: slots + addends[1 - rank])
        one = copy.deepcopy(ours)
        assert torch.allclose(one(x[4 * rank : 4 * rank + 4]), expected[4 * rank : 4 * rank + 4], rtol=1e-9, atol=1e-9)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.allclose(getattr(one, name).double(), getattr(whole, name).double(), rtol=1e-9), name


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_narrow_inputs_are_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch, narrow: torch.dtype, weights: torch.dtype
) -> None:
    """One process that plays both: twice its own statistics are those of its batch."""
    x = torch.randn(64, 3, 4, 4, dtype=narrow)
    plain, ours = nn.BatchNorm2d(3).to(weights), SynchronisedBatchNorm(3).to(weights)
    exact = nn.BatchNorm2d(3).double()(x.double())
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(synchronised, "summed", lambda slots: slots)
    out = ours(x)
    assert out.dtype is narrow
    assert (out.double() - exact).abs().max() <= (x.to(narrow).double().abs().max() * torch.finfo(narrow).eps)
    assert ours.running_var.dtype is weights  # type: ignore[union-attr]
    plain(x.to(weights))
    assert torch.allclose(ours.running_mean.float(), plain.running_mean.float(), atol=1e-2)  # type: ignore[union-attr]


def test_without_other_processes_it_is_batch_norm() -> None:
    x = torch.randn(6, 4, 3, 3)
    plain, ours = nn.BatchNorm2d(4), SynchronisedBatchNorm(4)
    assert torch.equal(plain(x), ours(x))
    plain.eval()
    ours.eval()
    assert torch.equal(plain(x), ours(x))
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        ours.train()(torch.randn(4))


def test_every_batch_norm_is_replaced_and_keeps_its_tensors() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=0.5, momentum=0.3), nn.ModuleList([nn.BatchNorm1d(2)])
    )
    before = {name: id(value) for name, value in [*network.named_parameters(), *network.named_buffers()]}
    found = synchronise_batch_norm(network, "cpu")
    assert {name: id(value) for name, value in [*found.named_parameters(), *found.named_buffers()]} == before
    kinds = [m for m in found.modules() if isinstance(m, SynchronisedBatchNorm)]
    assert [(m.eps, m.momentum) for m in kinds] == [(0.5, 0.3), (1e-5, 0.1)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())


def test_a_case_may_ask_for_it() -> None:
    model = build_workload(Case(model="revnet-38", sync_batch_norm=True, world_size=2, strategy="reconstructed")).model
    plain = build_workload(Case(model="revnet-38")).model
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert sum(isinstance(m, SynchronisedBatchNorm) for m in model.modules()) == sum(
        isinstance(m, nn.BatchNorm2d) for m in plain.modules()
    )
