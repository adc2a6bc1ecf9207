"""One comparison of gradients: what a GPU does otherwise, imposed on the CPU, and what is left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import revbench
from revbench.numerics import passes
from revbench.numerics.gradients import block_names, compare_gradients, set_strategies


def chain() -> nn.Module:
    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3))

    return nn.Sequential(nn.Linear(5, 12), revbench.reversible([(half(), half()) for _ in range(3)]), nn.Linear(12, 3))


def test_dropout_in_float32_is_the_same_in_every_dtype_and_when_run_again() -> None:
    model = chain()
    x, y = torch.randn(9, 5), torch.randint(3, (9,))
    found = []
    for dtype, strategy in ((torch.float32, "stored"), (torch.float64, "stored"), (torch.float64, "reconstructed")):
        ours = copy.deepcopy(model).to(dtype)
        set_strategies(ours, strategy)
        torch.manual_seed(4)
        with passes._dropout_in_float32():
            F.cross_entropy(ours(x.to(dtype)), y).backward()
        found.append(torch.cat([p.grad.double().flatten() for p in ours.parameters()]))  # type: ignore[union-attr]
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert torch.allclose(found[1], found[2], rtol=1e-10, atol=1e-12)
    plain = copy.deepcopy(model)
    torch.manual_seed(4)
    F.cross_entropy(plain(x), y).backward()
    other = torch.cat([p.grad.double().flatten() for p in plain.parameters()])  # type: ignore[union-attr]
    assert not torch.allclose(found[0], other, rtol=1e-2)  # other masks: it was ours that drew


def test_dropout_that_does_nothing_stays_pytorchs() -> None:
    x = torch.randn(50)
    for p, training in ((0.0, True), (1.0, True), (0.4, False)):
        assert torch.equal(passes._dropout(x, p, training), F.dropout(x, p, training))
    torch.manual_seed(0)
    dropped = passes._dropout(x, 0.4)
    assert torch.allclose(dropped[dropped != 0], (x / 0.6)[dropped != 0])
    assert 5 < int((dropped == 0).sum()) < 40


def test_blocks_are_members_of_lists() -> None:
    model = revbench.build_model("revnet-38", image_size=8)
    block_of = block_names(model)
    assert block_of("stem.0.weight") == "stem"
    assert block_of("trunk.3.f.1.weight") == "trunk.3"
    nested = nn.ModuleDict({"a": nn.ModuleList([nn.ModuleList([nn.Linear(1, 1)])])})
    assert block_names(nested)("a.0.0.weight") == "a.0"


def test_a_lost_gradient_is_an_error_of_all_of_it() -> None:
    class Lossy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> None:
            return None

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.lossy = nn.Linear(4, 4), nn.Linear(4, 4), False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.second(Lossy.apply(x) if self.lossy else x)

    def set_strategy(model: nn.Module, strategy: str) -> None:
        model.lossy = strategy != "stored"  # type: ignore[assignment]

    drift = compare_gradients(
        Network(), F.mse_loss, torch.randn(8, 4), torch.randn(8, 4), strategy="lossy", set_strategy=set_strategy
    )
    assert drift.tensors["first.weight"].relative_error == 1.0
    assert drift.tensors["second.weight"].relative_error < 1e-6
    assert drift.activation_reason == "lossy reconstructs no activation"


def test_a_frozen_parameter_is_left_out() -> None:
    model = chain()
    model[0].weight.requires_grad_(False)  # type: ignore[index,union-attr,operator]
    drift = compare_gradients(model, F.cross_entropy, torch.randn(9, 5), torch.randint(3, (9,)))
    assert "0.weight" not in drift.tensors
    assert drift.whole.relative_error < 1e-5


def test_settings_are_left_as_they_were() -> None:
    model, x = chain(), torch.randn(9, 5)
    state = torch.get_rng_state()
    with pytest.raises(FloatingPointError):
        compare_gradients(model, lambda *_: torch.tensor(torch.nan), x, None)
    assert torch.equal(torch.get_rng_state(), state)
    assert nn.Module._call_impl.__qualname__ == "Module._call_impl"
