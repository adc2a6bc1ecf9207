"""Loaders that can't do their work end a training with a reason."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from revbench.errors import UserError
from revbench.training.loaders import batches_of, check_shared_memory


class Zeros(Dataset[Any]):
    """Does something before it gives its item."""

    def __init__(self, before: str) -> None:
        self._before = before

    def __getitem__(self, key: int) -> torch.Tensor:
        if self._before == "fill":  # as a full /dev/shm does: the file of a batch can't grow
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        elif self._before == "sleep":
            time.sleep(2.5)
        elif self._before == "die":
            os._exit(3)
        elif self._before == "raise":
            raise RuntimeError("an item of its own")
        return torch.zeros(1 << 20)


def read(before: str, loaders: int = 1, wait_seconds: float = 60.0) -> list[Any]:
    return list(
        batches_of(Zeros(before), iter([[1], [2]]), torch.stack, loaders=loaders, cuda=False, wait_seconds=wait_seconds)
    )


def test_loaders_that_do_their_work() -> None:
    for loaders in (0, 1):
        assert [batch.shape for batch in read("", loaders)] == [(1, 1 << 20)] * 2


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("fill", "unable to (write|resize|mmap|allocate)|File too large"),
        ("sleep", "timed out"),
        ("die", "exited unexpectedly"),
    ],
)
def test_a_batch_that_never_comes_has_a_reason(before: str, said: str) -> None:
    mend = "give --loaders 0, or more shared memory"
    with pytest.raises(UserError, match=f"the processes that read images ahead failed: .*({said}).*; {mend}"):
        read(before, wait_seconds=1.0 if before == "sleep" else 60.0)


def test_what_an_item_raises_is_its_own() -> None:
    for loaders in (0, 1):
        with pytest.raises(RuntimeError, match="an item of its own"):
            read("raise", loaders)


def test_too_little_shared_memory_is_said_before_anything_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 64 << 20  # of a container

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    check_shared_memory(0, 1 << 40, tmp_path)
    check_shared_memory(4, 4 << 20, tmp_path)
    with pytest.raises(
        UserError, match=rf"4 loaders may need 128.0 MiB of shared memory, and {tmp_path} has 64.0 MiB; give --l"
    ):
        check_shared_memory(4, 8 << 20, tmp_path)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="8 loaders"):
        check_shared_memory(4, 4 << 20, tmp_path)
    check_shared_memory(4, 8 << 20, tmp_path / "a system without it")
