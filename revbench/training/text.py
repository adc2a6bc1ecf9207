"""Real text as bytes: the documentation that comes with every Python, or a file; windows of it, by seed and step alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from revbench.case import Case
from revbench.errors import UserError
from revbench.training.batches import Batch, Facts
from revbench.training.order import ALONE, Share, mixed
from revbench.training.sources import HELD_OUT, TEXT

_LARGEST_BYTES = 2**31  # of a text in memory


def load_text(source: str) -> Tensor:
    """Returns a text.

    Args:
        source: ``python-docs``, the topics of Python's own documentation (``pydoc_data.topics``, part of each Python, about half
            a million bytes, under the PSF licence; another version of Python has a slightly other one), or the path of a file.

    Returns:
        uint8 ``(bytes,)``.

    Raises:
        UserError: a file that can't be read, or is larger than 2 GiB.
    """
    if source == TEXT:
        try:
            from pydoc_data.topics import topics
        except ImportError as error:
            raise UserError(f"data: this Python comes without {TEXT} (pydoc_data); give a text as PATH") from error
        content = "\n\n".join(topics[name] for name in sorted(topics)).encode()
    else:
        path = Path(source)
        try:
            if path.stat().st_size > _LARGEST_BYTES:
                raise UserError(f"data: {source!r} has more than 2 GiB; give a part of it")
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"data: {source!r} can't be read: {error.strerror or error}") from error
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy())


class TextSupply:
    """Windows of a text that lies in the device's memory, bytes as tokens; the last fifth of it is held out.

    A step's windows begin anywhere, drawn by seed and step; to validate they follow each other without a gap.

    Args:
        case: its batch size, seed, device and length of a sequence.
        text: uint8 ``(bytes,)``.
        limit: to validate on at most so many windows, the first; all if 0.
        share: of each batch.

    Raises:
        UserError: a text that is too short for one window in each part.
    """

    def __init__(self, case: Case, text: Tensor, *, limit: int = 0, share: Share = ALONE) -> None:
        self._case, self._share = case, share
        self._length = case.items // case.batch_size
        held_out = len(text) // HELD_OUT
        if held_out <= self._length:
            raise UserError(
                f"data: a text of {len(text):,} bytes is too short for sequences of {self._length}; it takes more than"
                f" {HELD_OUT * (self._length + 1):,}"
            )
        parts = text[: len(text) - held_out], text[len(text) - held_out :]
        self._train, self._validation = (part.to(case.device) for part in parts)
        whole = (held_out - 1) // self._length
        self._windows = min(limit, whole) if limit else whole
        self.facts = Facts(
            item="token", train_items=len(parts[0]), train_available=len(parts[0]),
            validation_items=self._windows * self._length, mean=(), deviation=(), sha256=_digest(parts[0]),
            validation_sha256=_digest(parts[1]), device_bytes=text.nbytes,
        )  # fmt: skip

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Returns tokens and those that follow them, int64 ``(B, T)`` each, of step `first` up to, without, step `last`."""
        for step in range(first, last):
            generator = torch.Generator().manual_seed(mixed(self._case.seed, step, 1))
            starts = torch.randint(len(self._train) - self._length, (self._case.batch_size,), generator=generator)
            yield self._cut(self._train, starts[self._share.of(self._case.batch_size)])

    def validation(self) -> Iterator[Batch]:
        """Returns this process's windows of the text that is held out."""
        starts = torch.arange(self._windows)[self._share.rank :: self._share.world_size] * self._length
        for some in starts.split(max(self._case.batch_size // self._share.world_size // self._case.accumulate, 1)):
            yield self._cut(self._validation, some)

    def _cut(self, text: Tensor, starts: Tensor) -> Batch:
        at = (starts[:, None] + torch.arange(self._length + 1)).to(text.device, non_blocking=True)
        windows = text[at].long()
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def _digest(text: Tensor) -> str:
    return hashlib.sha256(text.numpy().tobytes()).hexdigest()
