"""DistributedDataParallel, `fully_shard` and synchronised batch norm: two processes give what one gives on the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from revbench import reversible
from tests.backprop.chains import relative_difference
from tests.backprop.distributed import Network, SynchronisedNorm, found, network_to_shard, whole_batch
from tests.conftest import ROOT


def run_two(folder: Path, module: str, *arguments: str) -> list[dict[str, torch.Tensor]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(rank), str(folder), *arguments],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=120)[1] for process in both]  # a dead-lock ends here
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("strategy", ["reconstructed", pytest.param("checkpointed", marks=pytest.mark.slow)])
def test_two_processes_give_the_gradient_of_one(strategy: str, tmp_path: Path) -> None:
    ranks = run_two(tmp_path, "tests.backprop.distributed", strategy)
    one = Network()
    one.chain.strategy = "stored"
    x = whole_batch()
    for _ in range(2):
        one(torch.cat([x[:3], x[6:9]]))  # the step without synchronised gradients moves the running values too
        one.zero_grad()
        (one(x).square().sum() / 12).backward()
    expected = found(one)
    for rank in ranks:
        collectives = rank.pop("collectives")
        assert collectives == 16  # 8 half steps, once forward and once again
        assert rank.keys() == expected.keys()
        for name, value in expected.items():
            if name.endswith("batches"):
                assert rank[name] == value == 4, name  # once a step, not twice
            else:
                assert relative_difference([rank[name]], [value]) < 1e-9, name
    assert SynchronisedNorm.collectives == 0


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="before PyTorch 2.7 `fully_shard` needs a GPU"
)
@pytest.mark.parametrize("strategy", ["reconstructed", pytest.param("checkpointed", marks=pytest.mark.slow)])
def test_two_processes_that_shard_the_chain_give_the_gradient_of_one(strategy: str, tmp_path: Path) -> None:
    """`fully_shard` frees the parameters after forward and gathers them again, into other memory, before backward."""
    one = network_to_shard("stored")
    one(whole_batch()).square().sum().div(2).backward()  # the processes' gradients are averaged
    for rank in run_two(tmp_path, "tests.backprop.distributed", strategy, "sharded"):
        for name, p in one.named_parameters():
            assert relative_difference([rank[name]], [p.grad]) < 1e-12, name


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch's SyncBatchNorm needs a GPU, and there is none")
def test_pytorchs_synchronised_norm_on_one_process() -> None:
    def half() -> nn.Module:
        return nn.Sequential(nn.SyncBatchNorm(3), nn.ReLU(), nn.Linear(3, 3))

    chain = reversible([(half(), half()) for _ in range(3)]).double().cuda()
    x = torch.randn(8, 6, dtype=torch.float64, device="cuda")
    grads = []
    for chain.strategy in ("stored", "reconstructed"):
        grads.append(torch.autograd.grad(chain(x).square().sum(), list(chain.parameters())))
    assert relative_difference(grads[1], grads[0]) < 1e-9
