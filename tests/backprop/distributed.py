"""What each of two processes does in the tests of data parallelism: ``python -m tests.backprop.distributed``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from revbench import reversible
from revbench.choices import Strategy


class SynchronisedNorm(nn.Module):
    """Batch norm over the batches of all processes; PyTorch's own `SyncBatchNorm` refuses the CPU."""

    collectives = 0

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor) -> Tensor:
        sums = torch.stack([x.sum(0), x.square().sum(0), torch.full_like(x[0], x.shape[0])])
        if dist.is_initialized():
            SynchronisedNorm.collectives += 1
            sums = all_reduce(sums)
        mean, square, count = sums[0] / sums[2], sums[1] / sums[2], sums[2]
        with torch.no_grad():
            self.running_mean.mul_(0.9).add_(0.1 * mean)
            self.batches += 1
        assert count[0] > 1
        return (x - mean) * (square - mean.square() + 1e-3).rsqrt() * self.weight


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)

        def half() -> nn.Module:
            return nn.Sequential(SynchronisedNorm(3), nn.ReLU(), nn.Linear(3, 3))

        self.first = nn.Linear(6, 6)
        self.chain = reversible([(half(), half()) for _ in range(4)])
        self.last = nn.Linear(6, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.chain(self.first(x)))
        return out


def whole_batch() -> Tensor:
    return torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def found(network: Network) -> dict[str, Tensor]:
    gradients = {f"{name}.grad": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return gradients | dict(network.named_buffers())


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x))


def network_to_shard(strategy: Strategy) -> nn.Sequential:
    torch.manual_seed(0)
    pairs = [(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), Own()) for _ in range(3)]
    return nn.Sequential(nn.Linear(6, 6), reversible(pairs, strategy=strategy), nn.Linear(6, 2)).double()


def sharded(rank: int, strategy: Strategy) -> dict[str, Tensor]:
    """Gradients of a network whose chain frees its parameters between forward and backward."""
    network = network_to_shard(strategy)
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(network[1], mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh)
    for _ in range(2):
        network.zero_grad()
        network(whole_batch()[rank * 6 : rank * 6 + 6]).square().sum().backward()
    return {name: p.grad.full_tensor() for name, p in network.named_parameters()}  # type: ignore[union-attr]


def main(rank: int, folder: Path, strategy: Strategy, how: str = "replicated") -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    if how == "sharded":
        torch.save(sharded(rank, strategy), folder / f"{rank}.pt")
        dist.destroy_process_group()
        return
    network = Network()
    network.chain.strategy = strategy
    # Small buckets: the reduction of late layers' gradients overlaps with the recomputation of early ones.
    model = DistributedDataParallel(network, bucket_cap_mb=1e-5, broadcast_buffers=False)
    own = whole_batch()[rank * 6 : rank * 6 + 6]
    for _ in range(2):
        network.zero_grad()
        with model.no_sync():
            model(own[:3]).square().sum().backward()
        network.zero_grad()
        SynchronisedNorm.collectives = 0
        (model(own).square().sum() / 6).backward()
    torch.save(found(network) | {"collectives": torch.tensor(SynchronisedNorm.collectives)}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])  # type: ignore[arg-type]
    os._exit(0)  # gloo's threads now and then abort an interpreter that shuts down ("terminate called ...")
