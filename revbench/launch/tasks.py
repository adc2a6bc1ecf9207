"""What torchrun's store carries: which training is next and how it ended, read as what anybody may have written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from revbench.case import Case
from revbench.choices import STATUSES
from revbench.errors import RunEnded
from revbench.training.declared import TRAINING

_MOST_BYTES = 1 << 20  # of a word in the store


class Task:
    """One training that the command line asks for.

    Args:
        case: what is trained, on the device ``cpu`` or ``cuda``.
        options: of `revbench.training.loop.measure_training`.
        silence_seconds: see `WorkerServer.measure`.
    """

    def __init__(self, case: Case, options: Mapping[str, Any], silence_seconds: float) -> None:
        self.case, self.options, self.silence_seconds = case, options, silence_seconds

    @property
    def digest(self) -> str:
        """A digest that is equal in all processes that were started alike, whatever their machines call data and folders."""
        shared = {name: value for name, value in self.options.items() if name not in TRAINING.private_options}
        return sha256(json.dumps([self.case.to_json(), shared], sort_keys=True).encode()).hexdigest()


def own_task(asked: Mapping[str, Any], tasks: Sequence[Task], rank: int) -> Task:
    """Returns the training of this process's own command line that has this index and digest."""
    index = asked.get("index")
    if type(index) is not int or not 0 <= index < len(tasks) or tasks[index].digest != asked.get("digest"):
        raise RunEnded(f"process {rank} was called to a training that its command line does not name; start all alike")
    return tasks[index]


def read_words(text: bytes) -> dict[str, Any]:
    """Returns what the store holds under a name, which anybody may have written."""
    try:
        found = json.loads(text) if len(text) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise RunEnded(
            "the store of this run holds what none of its processes writes; start again on a port of your own"
        )
    return found


def read_outcome(text: bytes) -> dict[str, Any]:
    """Returns how a task ended in a process: ``status``, ``message`` and ``log_tail``."""
    found = read_words(text)
    status = found.get("status")
    words = {name: str(found.get(name) or "")[:4000] for name in ("message", "log_tail")}
    return {"status": status if status in (*STATUSES, "refused", "left") else "crashed", **words}
