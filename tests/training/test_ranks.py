from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

from revbench.training.order import Share
from revbench.training.ranks import Ranks, joined


@pytest.mark.parametrize(
    ("device", "backend"), [("cuda", "cpu:gloo,cuda:nccl"), ("cuda:1", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")]
)
def test_words_are_exchanged_between_hosts(monkeypatch: pytest.MonkeyPatch, device: str, backend: str) -> None:
    """Under NCCL alone they would pass through the GPU's memory and wait in its queue."""
    said: list[Any] = []
    monkeypatch.setattr(dist, "TCPStore", lambda *_, **__: dist.HashStore())
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: said.append(name))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    meeting = {"rank": 0, "world_size": 2, "host": "here", "port": 1, "name": "training"}
    with joined(meeting, device) as ranks:
        assert said == [backend]
        assert not ranks.alone


def test_what_is_told_lies_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: set[torch.device] = set()

    def gather(out: list[torch.Tensor], own: torch.Tensor) -> None:
        devices.add(own.device)
        for one in out:
            one.copy_(own)

    monkeypatch.setattr(dist, "all_gather", gather)
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: devices.add(tensor.device))
    ranks = Ranks(Share(0, 2))
    assert ranks.of_all({"loss": 1.5}) == [{"loss": 1.5}] * 2
    assert ranks.from_first("x", most_bytes=9000) == "x"
    assert devices == {torch.device("cpu")}
