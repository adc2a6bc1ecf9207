"""One comparison of gradients: what a GPU does otherwise, imposed on the CPU, and what is left as it was."""

from __future__ import annotations

import copy
import random
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import revbench
from revbench.errors import UserError
from revbench.numerics import passes
from revbench.numerics.gradient_errors import block_names
from revbench.numerics.gradients import compare_gradients
from revbench.numerics.networks import set_strategies


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
        with passes.dropout_in_float32():
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


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(9, 5), torch.randint(3, (9,))


def test_the_first_chain_that_is_not_stored_names_the_strategy() -> None:
    model = nn.Sequential(chain(), nn.Linear(3, 5), chain())
    model[0][1].strategy = "stored"  # type: ignore[index,union-attr]
    drift = compare_gradients(model, F.cross_entropy, *batch())
    assert [name for name, place in drift.blocks.items() if place.activation] == [f"2.1.blocks.{i}" for i in range(3)]
    with pytest.raises(UserError, match="no strategy to set"):
        compare_gradients(nn.Linear(5, 3), F.cross_entropy, *batch(), set_strategy=lambda *_: None)


def test_a_chain_that_is_called_twice() -> None:
    inner = revbench.reversible([(nn.Linear(6, 6), nn.Linear(6, 6)) for _ in range(2)])

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.chain, self.head = nn.Linear(5, 12), inner, nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.chain(torch.relu(self.chain(self.stem(x)))))

    drift = compare_gradients(Twice(), F.cross_entropy, *batch())
    assert drift.whole.activation is not None
    assert drift.whole.activation.rms < 1e-5
    assert drift.whole.smooth_relative_error is not None
    assert drift.whole.smooth_relative_error < 1e-5


def test_what_surrounds_it_makes_no_difference() -> None:
    model, (x, y) = chain(), batch()
    free = compare_gradients(model, F.cross_entropy, x, y)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert compare_gradients(model, F.cross_entropy, x, y).whole == free.whole


def test_losses_and_states_in_float32_have_a_reference_in_float64() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.RNNCell(5, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(self.cell(x, torch.zeros(len(x), 6)))

    drift = compare_gradients(Recurrent(), nn.CrossEntropyLoss(weight=torch.ones(3)), *batch())
    assert drift.whole.relative_error < 1e-5
    assert torch.get_default_dtype() == torch.float32

    class Stubborn(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.zeros(len(x), 5, dtype=torch.float32) + x.float())

    with pytest.raises(UserError, match=r"can't run in float64.*make tensors in the input's dtype"):
        compare_gradients(Stubborn(5, 3), F.cross_entropy, *batch())


class Experts(nn.Module):
    """Which rows go where depends on the values, so another dtype sends other rows."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 2)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> Any:
        chosen = self.gate(x).argmax(1)
        out = x.new_zeros(len(x), 3)
        for i, expert in enumerate(self.experts):
            out = out.index_put((torch.nonzero(chosen == i)[:, 0],), expert(x[chosen == i]))
        return out


def test_networks_that_compute_otherwise_in_each_dtype() -> None:
    x, y = torch.randn(5000, 5).bfloat16(), torch.randint(3, (5000,))
    drift = compare_gradients(Experts().bfloat16(), F.cross_entropy, x, y)
    assert drift.whole.smooth_relative_error is None
    assert drift.whole.flips is None
    assert "does not compute the same way" in str(drift.smooth_reason)
    assert 0 < drift.whole.relative_error < 1


def test_code_that_is_compiled_in_part() -> None:
    model = nn.Sequential(
        nn.Linear(5, 6), torch.compile(nn.Sequential(nn.Linear(6, 6), nn.ReLU()), backend="eager"), nn.Linear(6, 3)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Dynamo's own, of how it looks at tensors
        drift = compare_gradients(model, F.cross_entropy, *batch())
    assert drift.smooth_reason == "compiled code can't be followed"
    assert drift.whole.relative_error < 1e-5


def test_what_can_not_be_measured_is_said() -> None:
    class Complex(nn.Linear):
        def __init__(self) -> None:
            super().__init__(5, 3)
            self.phase = nn.Parameter(torch.ones(3, dtype=torch.complex64))

    with pytest.raises(UserError, match="complex parameters"):
        compare_gradients(Complex(), F.cross_entropy, *batch())
    with pytest.raises(UserError, match="no parameter that needs gradient"):
        compare_gradients(nn.Linear(5, 3).requires_grad_(False), F.cross_entropy, *batch())

    class Keeps(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = super().forward(x)
            return self.last

    model = Keeps(5, 3)
    model(batch()[0])
    with pytest.raises(UserError, match=r"can't be copied.*keep no activation in a module"):
        compare_gradients(model, F.cross_entropy, *batch())


def test_a_loss_that_uses_the_model_leaves_its_gradients_alone() -> None:
    model = chain()
    model(batch()[0]).sum().backward()
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    def decayed(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets) + sum(p.square().sum() for p in model.parameters())

    with pytest.raises(UserError, match="the loss uses the model's own parameters"):
        compare_gradients(model, decayed, *batch())
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(map(torch.equal, before, after))


def test_buffers_of_the_first_pass_and_sparse_gradients() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(7, 5, sparse=True), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> Any:
            if not hasattr(self, "scale"):
                self.register_buffer("scale", torch.ones(1))
            return self.head(self.table(x) * self.scale)

    drift = compare_gradients(Lazy(), F.cross_entropy, torch.randint(7, (9,)), torch.randint(3, (9,)))
    assert drift.whole.relative_error < 1e-5
    assert "table.weight" in drift.tensors


def test_pythons_and_numpys_generators_are_kept_and_seeded() -> None:
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(6)), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> Any:
            for layer in self.layers:
                if random.random() < 0.5 and np.random.rand() < 0.8:  # noqa: NPY002
                    x = torch.relu(layer(x))
            return self.head(x)

    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    drift = compare_gradients(Depth(), F.cross_entropy, *batch())
    assert drift.whole.relative_error < 1e-5
    assert drift.whole.smooth_relative_error is not None
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002
