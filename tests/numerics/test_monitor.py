"""The hook for training loops: it finds what the probe finds, and the training does not know of it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import revbench
from revbench.errors import UserError
from revbench.numerics.monitor import DriftMonitor


def network() -> nn.Module:
    def half() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.Dropout(0.2))

    chain = revbench.reversible([(half(), half()) for _ in range(3)])
    return nn.Sequential(nn.Linear(5, 12), chain, nn.Linear(12, 3))


def train(*, watch: bool, steps: int = 7) -> tuple[nn.Module, DriftMonitor, torch.Tensor]:
    torch.manual_seed(3)
    model = network()
    monitor = DriftMonitor(model, F.cross_entropy, every=3, items=6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        inputs, targets = torch.randn(9, 5), torch.randint(3, (9,))
        if watch:
            monitor(step, inputs, targets)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model, monitor, torch.get_rng_state()


def test_the_trained_weights_are_the_same_bit_for_bit() -> None:
    plain, _, plain_state = train(watch=False)
    watched, monitor, state = train(watch=True)
    assert [moment.step for moment in monitor.moments] == [0, 3, 6]
    for (name, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(plain_state, state)
    for moment in monitor.moments:
        assert moment.seconds > 0
        assert moment.drift is not None
        assert 0 < moment.drift.whole.relative_error < 1e-2
        assert moment.drift.trace == ()


def test_what_is_measured_is_left_as_it_was() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    model(torch.randn(4, 5)).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    running = copy.deepcopy(model.state_dict())
    DriftMonitor(model, F.cross_entropy, every=1)(0, torch.randn(4, 5), torch.randint(3, (4,)))
    assert all(torch.equal(a, b) for a, b in zip(running.values(), model.state_dict().values(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before.values(), running.values(), strict=True))
    assert all(torch.equal(g, p.grad) for g, p in zip(gradients, model.parameters(), strict=True))  # type: ignore[arg-type]
    assert model[1].strategy == "reconstructed"  # type: ignore[index]
    assert model[1].witness is None  # type: ignore[index]


def test_a_training_that_diverges_is_said_to() -> None:
    model = network()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    moment = DriftMonitor(model, F.cross_entropy, every=1)(0, torch.randn(4, 5), torch.randint(3, (4,)))
    assert moment is not None
    assert moment.drift is None
    assert "the first output that is not finite is that of 0" in str(moment.problem)


@pytest.mark.parametrize("fields", [{"every": 0}, {"every": 1, "items": 0}, {"every": True}])
def test_settings_that_mean_nothing(fields: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be an integer of at least 1"):
        DriftMonitor(network(), F.cross_entropy, **fields)


def test_what_goes_wrong_later_ends_no_training() -> None:
    class Keeps(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last = super().forward(x)
            return self.last

    model = Keeps(5, 3)
    watch = DriftMonitor(model, F.cross_entropy, every=1)
    first = watch(0, torch.randn(4, 5), torch.randint(3, (4,)))
    model(torch.randn(4, 5)).sum().backward()
    second = watch(1, torch.randn(4, 5), torch.randint(3, (4,)))
    assert first is not None
    assert first.problem is None
    assert second is not None
    assert "can't be copied" in str(second.problem)
    with pytest.raises(UserError, match="can't be copied"):
        DriftMonitor(model, F.cross_entropy, every=1)(0, torch.randn(4, 5), torch.randint(3, (4,)))
