"""The processes that train one network together: what they exchange, each step and at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.nn.parallel import DistributedDataParallel

from revbench.training.order import ALONE, Share
from revbench.training.place import MEETING


class Ranks:
    """This process among those that train together; alone by default, and then nothing is exchanged.

    Attributes:
        share: of every batch.
        alone: there are no others.
        first: this process writes.
    """

    def __init__(self, share: Share = ALONE) -> None:
        self.share = share
        self.alone = share.world_size == 1
        self.first = share.rank == 0

    def wrap(self, model: nn.Module, device: str) -> nn.Module:
        """The model, its gradients averaged over the processes in each backward pass."""
        if self.alone:
            return model
        return DistributedDataParallel(model, device_ids=[torch.device(device)] if device.startswith("cuda") else None)

    def local(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a part of a batch: gradients are exchanged only after the last one."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all processes; the value itself is changed."""
        if not self.alone:
            dist.all_reduce(value)
        return value

    def of_all(self, value: Any) -> list[Any]:
        """The value of each process, by rank."""
        if self.alone:
            return [value]
        found: list[Any] = [None] * self.share.world_size
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """The first process's value."""
        if self.alone:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, src=0)
        return holder[0]

    def copy_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers (batch-norm statistics, each of its own share so far)."""
        if not self.alone:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


@contextmanager
def joined(place: Mapping[str, Any] | None, device: str) -> Iterator[Ranks]:
    """Meet the other processes, and leave them at the end.

    Args:
        place: ``rank``, ``world_size``, ``host`` and ``port`` of the store where they meet, and the ``name`` of the meeting;
            None if there are no others.
        device: where the tensors are: decides between NCCL and gloo.
    """
    if place is None:
        yield Ranks()
        return
    share = Share(place["rank"], place["world_size"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        place["host"], place["port"], is_master=False, timeout=MEETING
    )
    dist.init_process_group(
        "nccl" if device.startswith("cuda") else "gloo",
        store=PrefixStore(place["name"], store), rank=share.rank, world_size=share.world_size,
    )  # fmt: skip
    yield Ranks(share)
    dist.destroy_process_group()  # not after an error: NCCL would wait for the others, who wait for this process
