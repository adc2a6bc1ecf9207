"""Where a process stands among those that ``torchrun`` started; no torch is imported here until they meet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from revbench.case import Case
from revbench.errors import UserError

MEETING = timedelta(minutes=10)  # until the last process must have come


@dataclass(frozen=True)
class Rank:
    """Says where a process stands among those that ``torchrun`` started.

    Attributes:
        number: from 0; the process of number 0 leads.
        world_size: number of processes.
        local_rank: among those of this machine; its GPU.
        host, port: of the store where all meet.
        hosts: whether this process must provide the store.
        attempt: counts torchrun's restarts.
    """

    number: int
    world_size: int
    local_rank: int
    host: str
    port: int
    hosts: bool
    attempt: str

    @classmethod
    def from_environment(cls) -> Rank | None:
        """Returns what torchrun's variables say; None in a process that is alone.

        Raises:
            UserError: they say nothing that can be.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
            return None
        try:
            rank, size, local, port = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
            host = os.environ["MASTER_ADDR"]
        except (KeyError, ValueError) as error:
            raise UserError(
                f"RANK and WORLD_SIZE are set, but not all of torchrun's variables ({error}); use torchrun"
            ) from error
        hosts = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        return cls(rank, size, local, host, port, hosts, os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

    def store(self, *, first: bool = False) -> Any:
        """Returns a connection to the store; the first one of the process that hosts it opens it."""
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        store = dist.TCPStore(  # type: ignore[attr-defined]
            self.host, self.port, is_master=first and self.hosts, wait_for_workers=False, timeout=MEETING
        )
        return PrefixStore(f"revbench/{self.attempt}", store)

    def on_its_gpu(self, case: Case) -> Case:
        """Returns a training on this process's own GPU, if it is on GPUs at all."""
        return case.replace(device=f"cuda:{self.local_rank}") if self.number and case.device == "cuda" else case

    def of_worker(self, number: int) -> dict[str, Any]:
        """Returns what a worker needs to meet the others; see `revbench.training.ranks.joined`."""
        return {
            "rank": self.number, "world_size": self.world_size, "host": self.host, "port": self.port,
            "name": f"revbench/{self.attempt}/workers/{number}",
        }  # fmt: skip
