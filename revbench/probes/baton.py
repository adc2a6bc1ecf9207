"""Two processes that take turns: whoever holds the baton computes, and the other one waits.

Turns come in pairs, one of each process. Who leads a pair is drawn, and so is the pause between turns: what comes and goes on a
machine in a rhythm of its own (other virtual machines above all) would otherwise meet the same process again and again, and be
taken for a property of its code.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Mapping
from typing import Any

_SETTLE_SECONDS = (
    0.02  # in which this process's threads, that spin for some 12 ms when they have nothing to do, fall asleep
)
_READY, _LEFT = b"r", b"x"
_LEAD, _FOLLOW, _FOLLOW_AND_LEAD = b"l", b"f", b"g"  # the next pair; this pair; this pair and at once the next one
_TURNS = (_LEAD, _FOLLOW, _FOLLOW_AND_LEAD)
PROTOCOL = "drawn leaders"  # two versions of revbench must agree in it
PATIENCE_SECONDS = 600.0  # with the other process: it may still be building its networks


class Baton:
    """One end of it.

    Args:
        ends: ``own``, the pipe (a FIFO) that this process is told by, and ``other``, by which it tells the other; whether this
            process is the ``first``; and ``session``, a word that both put into their rows, and draw the order of their turns by.
    """

    def __init__(self, ends: Mapping[str, Any]) -> None:
        # Opened for both directions nobody has to be at the other end yet, and no end of file comes.
        self._own, self._other = (os.open(str(ends[name]), os.O_RDWR) for name in ("own", "other"))
        self._first = bool(ends["first"])
        self._alone = False
        self._leads = self._first  # the pair whose turn is now
        self._leads_next = False  # as was told with that turn
        self.session = str(ends["session"])
        self._generator = random.Random(f"{self.session} {self._first}")

    def begin(self) -> dict[int, int]:
        """Wait, unless this is the first one, until the other has warmed up: two at once make each other many times slower.

        Returns:
            How many steps the first one's turns have, by the number of the workload; nothing for the first one.
        """
        if self._first or not self._wait_for(_READY):
            return {}
        told = [self._read() for _ in range(self._read())]
        return dict(zip(told[::2], told[1::2], strict=True))

    def meet(self, steps: Mapping[int, int]) -> None:
        """Say that this process has warmed up, and wait until it is its turn.

        Args:
            steps: of its turns, by the number of the workload; the other one takes as many, so that both do the same.
        """
        told = [value for pair in steps.items() for value in pair]
        self._tell(_READY + bytes([len(told), *told]) if self._first else _READY)
        if self._first:
            self._wait_for(_READY)
        else:
            self._wait_for_turn()

    def hand_over(self) -> None:
        """Let the other process compute, unless this one is to lead the next pair, and wait until it is this one's turn again."""
        if not self._alone:
            time.sleep(_SETTLE_SECONDS * (1 + self._generator.random()))
        if self._leads_next:
            self._leads, self._leads_next = True, False
            return
        self._tell(self._generator.choice((_FOLLOW, _FOLLOW_AND_LEAD)) if self._leads else _LEAD)
        self._wait_for_turn()

    def leave(self) -> None:
        """Let the other process go on alone."""
        self._tell(_LEFT)

    def _tell(self, what: bytes) -> None:
        os.write(self._other, what)

    def _read(self) -> int:
        return os.read(self._own, 1)[0]

    def _wait_for_turn(self) -> None:
        told = self._wait_for(*_TURNS)
        self._leads, self._leads_next = told in (_LEAD, None), told == _FOLLOW_AND_LEAD

    def _wait_for(self, *some: bytes) -> bytes | None:
        """Returns which of some words it was told; None if the other process is gone."""
        while not self._alone:
            if not select.select([self._own], [], [], PATIENCE_SECONDS)[0]:
                raise TimeoutError("the process that this one takes turns with does not answer")
            told = os.read(self._own, 1)
            self._alone = told == _LEFT
            if told in some:
                return told
        return None


def move_to_first_core() -> None:
    """Move the calling thread to the first core that it may use, and leave it free to go.

    A core that another virtual machine slows costs more where the thread that calls the operations runs on it than where one of
    its helpers does. So two processes must begin their turns alike; the helpers, which sleep by then, wake up on the other cores.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    os.sched_setaffinity(0, allowed)


def release(path: str) -> None:
    """Tell the process that is told by this pipe that the other one is gone, whatever became of it."""
    end = os.open(path, os.O_RDWR)
    os.write(end, _LEFT)
    os.close(end)
