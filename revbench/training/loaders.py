"""Processes that read ahead and hand their batches over in shared memory, and an end with a reason when they can't."""

from __future__ import annotations

import multiprocessing.queues
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from revbench.errors import UserError, first_line
from revbench.units import human_bytes

PREFETCHED = 2  # batches that each loader reads ahead
WAIT_SECONDS = 600.0  # for one batch
SHARED_MEMORY = Path("/dev/shm")

_FAILED = "the processes that read images ahead failed"
_MEND = "give --loaders 0, or more shared memory (a container's --shm-size=8g)"


def check_shared_memory(loaders: int, batch_bytes: int, folder: Path = SHARED_MEMORY) -> None:
    """See that the batches of loaders have room in shared memory, of all processes of this machine.

    Args:
        loaders: of each process.
        batch_bytes: of the largest batch.
        folder: where shared memory is mounted.

    Raises:
        UserError: they have not; a container has 64 MiB unless it is told otherwise.
    """
    if not loaders or not folder.is_dir():
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed, there = 2 * PREFETCHED * loaders * processes * batch_bytes, shutil.disk_usage(folder).free  # 2: to validate
    if needed > there:
        raise UserError(
            f"{loaders * processes} loaders may need {human_bytes(needed)} of shared memory, and {folder} has"
            f" {human_bytes(there)}; {_MEND}"
        )


def batches_of(
    images: Dataset[Any],
    keys: Iterator[list[Any]],
    collate: Callable[[list[Any]], Any],
    *,
    loaders: int,
    cuda: bool,
    wait_seconds: float = WAIT_SECONDS,
) -> Iterator[Any]:
    """Returns the batches with these keys, in their order.

    Args:
        images: gives an item for each key.
        keys: of each batch.
        collate: makes a batch of items.
        loaders: processes that read ahead; 0 reads here.
        cuda: put batches where a GPU can fetch them.
        wait_seconds: for one batch; then the loaders are taken to hang.

    Raises:
        UserError: a loader died, could not hand over its batch, or was not done in time; with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "said"
        loader: Any = DataLoader(
            images, batch_sampler=keys, num_workers=loaders, collate_fn=collate, pin_memory=cuda,
            generator=torch.Generator(), # else it would draw from the generator of dropout
            timeout=wait_seconds if loaders else 0, prefetch_factor=PREFETCHED if loaders else None,
            worker_init_fn=partial(_speak_up, said) if loaders else None,
        )  # fmt: skip
        problem = ""
        try:
            yield from loader
        except RuntimeError as error:
            if not _of_loaders(error):
                raise  # it is an item's own
            problem = said.read_text(errors="replace").strip() if said.exists() else first_line(error)
        if problem:  # only now, when nothing holds the loaders any more
            raise UserError(f"{_FAILED}: {problem}; {_MEND}")


@contextmanager
def named_failures() -> Iterator[None]:
    """Surrounds what goes on while loaders read ahead: PyTorch raises wherever that is when one of them dies.

    Raises:
        UserError: one died.
    """
    try:
        yield
    except RuntimeError as error:
        if not _of_loaders(error):
            raise
        raise UserError(f"{_FAILED}: {first_line(error)}; {_MEND}") from error


def _of_loaders(error: RuntimeError) -> bool:
    return str(error).startswith(("DataLoader timed out", "DataLoader worker"))


def _speak_up(said: Path, loader: int) -> None:
    """Have a loader say why it ends: a batch that can't be handed over would be lost without a word, and be waited for for
    ever."""

    def fail(error: BaseException, batch: object) -> None:
        traceback.print_exc()
        said.write_text(first_line(error)[:500])
        os._exit(1)  # which the process that waits does notice

    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(fail)  # type: ignore[attr-defined]
