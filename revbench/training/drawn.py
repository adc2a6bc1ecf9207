"""Batches that a factory draws by itself: for networks whose data nobody else knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from revbench.errors import UserError
from revbench.training.batches import Facts
from revbench.training.order import Share, mixed
from revbench.training.sources import HELD_OUT_BATCHES
from revbench.workload import Workload


class DrawnSupply:
    """What a factory's ``make_batch`` draws, a function of seed and step; to validate, a few batches that no step sees.

    Args:
        workload: whose batches they are.
        share: of each batch; alone.

    Raises:
        UserError: the factory brings no ``make_batch``, or several processes are to share what it draws.
    """

    def __init__(self, workload: Workload, share: Share) -> None:
        case = workload.case
        if not workload.draws:
            raise UserError(
                f"data: {case.model} brings no make_batch; let the factory return (module, make_batch, loss), or name other data"
            )
        if share.world_size > 1:
            raise UserError("data: what a factory draws is not shared out among processes; train with one")
        self._workload = workload
        self.facts = Facts(
            item="item", train_items=0, train_available=0, validation_items=HELD_OUT_BATCHES * case.batch_size, mean=(),
            deviation=(), sha256="", validation_sha256="", device_bytes=0,
        )  # fmt: skip

    def batches(self, first: int, last: int) -> Iterator[tuple[Any, Any]]:
        """Returns the batches from step `first` up to, without, step `last`."""
        for step in range(first, last):
            yield self._draw(step, 1)

    def validation(self) -> Iterator[tuple[Any, Any]]:
        """Returns the batches that are held out."""
        for number in range(HELD_OUT_BATCHES):
            yield self._draw(number, 0)

    def _draw(self, number: int, purpose: int) -> tuple[Any, Any]:
        case = self._workload.case
        generator = torch.Generator().manual_seed(mixed(case.seed, number, purpose))
        return self._workload.drawn(case.batch_size, generator)
