"""The processes that train one network together: what they exchange, each step and at the end."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.nn.parallel import DistributedDataParallel

from revbench.case import is_gpu
from revbench.errors import UserError, first_line
from revbench.training.order import ALONE, Share
from revbench.training.rendezvous import MEETING

# Groups are left as they are when their last user goes: gloo's end of one waits for threads, which on PyTorch 2.6 may wait for a
# process that is gone. The worker ends without that.
_KEPT: list[Any] = []

_MOST_WORDS_BYTES = 64 << 20  # of what processes tell each other of themselves


class Ranks:
    """This process among those that train together; alone by default, and then nothing is exchanged.

    Tensors of the training are exchanged where they lie, words between the processes' hosts: neither the GPU's memory nor its
    queue has a part in those. What comes from another process is data: whoever reaches the store where they meet could be one of
    them.

    Args:
        share: of every batch.

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
        """Returns the model, its gradients averaged over the processes in each backward pass."""
        if self.alone:
            return model
        return DistributedDataParallel(model, device_ids=[torch.device(device)] if is_gpu(device) else None)

    def local(self, model: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Surrounds forward and backward of a part of a batch: gradients are exchanged only after the last one."""
        return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """Returns the sum over all processes; the value itself is changed."""
        if not self.alone:
            dist.all_reduce(value)
        return value

    def of_all(self, value: Any) -> list[Any]:
        """Returns the value of each process, by rank: numbers, words, tensors, and tuples, lists and dicts of those.

        Raises:
            UserError: another process's is larger than 64 MiB, or anything else.
        """
        if self.alone:
            return [value]
        own = pack(value)
        size = torch.tensor([own.numel()])
        sizes = [torch.empty_like(size) for _ in range(self.share.world_size)]
        dist.all_gather(sizes, size)
        counts = [checked_size(int(one), _MOST_WORDS_BYTES) for one in sizes]
        padded = F.pad(own, (0, max(counts) - own.numel()))
        found = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(found, padded)
        return [unpack(one[:count]) for one, count in zip(found, counts, strict=True)]

    def from_first(self, value: Any, *, most_bytes: int) -> Any:
        """Returns the first process's value, as `of_all`.

        Args:
            value: of the first process; of the others it does not matter.
            most_bytes: more than it may be expected to take.
        """
        if self.alone:
            return value
        own = pack(value if self.first else None)
        size = torch.tensor([own.numel()])
        dist.broadcast(size, src=0)
        if not self.first:
            own = torch.empty(checked_size(int(size), most_bytes), dtype=torch.uint8)
        dist.broadcast(own, src=0)
        return value if self.first else unpack(own)

    def copy_buffers(self, model: nn.Module) -> None:
        """Give all processes the first one's buffers (batch-norm statistics, each of its own share so far)."""
        if not self.alone:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)


def pack(value: Any) -> Tensor:
    """Returns a value as bytes, uint8 ``(N,)``."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def unpack(packed: Tensor) -> Any:
    """Returns what `pack` made a tensor of: tensors and plain values only.

    Raises:
        UserError: bytes that are nothing of the kind.
    """
    try:
        return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise UserError(f"another process sent what can't be read: {first_line(error)}") from error


def checked_size(size: int, most: int) -> int:
    """Returns the size that another process announced.

    Raises:
        UserError: it is none, or more than can be.
    """
    if not 0 < size <= most:
        raise UserError(f"another process announced {size} bytes, where {most} are the most that can be")
    return size


@contextmanager
def joined(rendezvous: Mapping[str, Any] | None, device: str) -> Iterator[Ranks]:
    """Meet the other processes, and leave them at the end.

    Args:
        rendezvous: ``rank``, ``world_size``, ``host`` and ``port`` of the store where they meet, and the ``name`` of the meeting;
            None if there are no others.
        device: where the tensors are; those on a GPU are exchanged by NCCL, those on the CPU by gloo.
    """
    if rendezvous is None:
        yield Ranks()
        return
    share = Share(rendezvous["rank"], rendezvous["world_size"])
    store = dist.TCPStore(  # type: ignore[attr-defined]
        rendezvous["host"], rendezvous["port"], is_master=False, timeout=MEETING
    )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if is_gpu(device) else "gloo",
        store=PrefixStore(rendezvous["name"], store), rank=share.rank, world_size=share.world_size,
    )  # fmt: skip
    _KEPT.append(dist.group.WORLD)
    yield Ranks(share)
    dist.destroy_process_group()  # not after an error: NCCL would wait for the others, who wait for this process
