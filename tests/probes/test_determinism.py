"""Whether identical steps give identical bits: found where they do, and where they do not."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.case import Case
from revbench.choices import STRATEGIES
from revbench.probes.determinism import measure_determinism
from revbench.workload import build_workload

_calls = itertools.count()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_cpu_is_deterministic(strategy: str) -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, strategy=strategy)
    m = measure_determinism(build_workload(case), progress=lambda _: None).metrics
    assert (m["identical"], m["first_difference"], m["differing_gradients"]) == (1, None, 0)
    assert m["gradients"] == sum(1 for _ in build_workload(case).model.parameters())


class Restless(nn.Module):
    """Never the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return x + next(_calls)


class RestlessBackward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        if x.requires_grad:
            x.register_hook(lambda grad: grad * (1 + next(_calls)))
        return x


def make(fault: str) -> nn.Module:
    def half(i: int) -> nn.Module:
        faults = {"forward": Restless, "backward": RestlessBackward}
        return nn.Sequential(nn.Linear(3 * 8 * 8 // 2, 96), faults[fault]() if i == 2 else nn.Tanh())

    chain = revbench.reversible([(half(0), half(1)), (half(2), half(3))])
    return nn.Sequential(nn.Flatten(), chain, nn.Linear(192, 10))


@pytest.mark.parametrize(
    ("fault", "where"), [("forward", "output of 1.blocks.1.f.1"), ("backward", "gradient of 1.blocks.1.f.0.bias")]
)
def test_where_two_runs_part(fault: str, where: str) -> None:
    case = Case(model=f"tests.probes.test_determinism:make(fault={fault})", image_size=8, batch_size=4)
    m = measure_determinism(build_workload(case), progress=lambda _: None).metrics
    assert m["identical"] == 0
    assert m["first_difference"] == where
    assert 0 < m["differing_gradients"] <= m["gradients"]  # type: ignore[operator]
    assert torch.is_grad_enabled()
