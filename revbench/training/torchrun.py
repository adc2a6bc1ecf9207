"""One training on many processes, started by ``torchrun``: the first hands out the tasks and writes, the others follow.

Each process is the parent of a worker server of its own. The parents meet at torchrun's store and exchange a few words
of JSON a training: the task, how it ended in each process, and that it is over. The workers meet there, too, and do the training.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from revbench.case import Case
from revbench.errors import RunEnded, UserError
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, Progress, WorkerServer
from revbench.training.place import MEETING, Place

_FOREVER = timedelta(days=30)
_AFTER_THE_END = timedelta(seconds=60)  # in which a process tells how it ended, once another has


class Participant(WorkerServer):
    """A worker server that takes part in trainings with others.

    Args:
        place: of this process.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.store = place.store(first=True)

    def take_part(
        self, number: int, cases: Sequence[Case], probe: str, options: Mapping[str, Any], *, timeout_seconds: float,
        progress: Progress = lambda _: None,
    ) -> dict[str, Any]:  # fmt: skip
        """Run this process's part of a task, until it is done or has failed anywhere.

        Returns:
            As `WorkerServer.measure`, with the statuses ``refused`` and ``left`` (because another process failed) as well. The
            others are told of it.
        """
        over = threading.Event()
        with self._watched(number, over):
            try:
                answer = WorkerServer.measure(
                    self, cases, probe, options={**options, "place": self.place.of_worker(number)},
                    timeout_seconds=timeout_seconds, progress=progress,
                )  # fmt: skip
            except UserError as error:
                answer = {"status": "refused", "message": str(error)}
        if answer["status"] == "crashed" and (over.is_set() or _lost_another(answer["message"])):
            answer["status"] = "left"
        told = {name: answer.get(name) for name in ("status", "message", "log_tail")}
        self.store.set(f"outcome/{number}/{self.place.rank}", json.dumps(told))
        if answer["status"] != "ok":
            self.store.set(f"over/{number}", "failed")
        elif self.place.rank == 0:
            everywhere = self._ended_well_everywhere(number)
            self.store.set(f"over/{number}", "done" if everywhere else "failed")
            answer["status"] = "ok" if everywhere else "left"
        return answer

    def come(self, keys: Sequence[str], patience: timedelta) -> bool:
        """Wait until all of these are in the store, so that a signal is heard; whether they came in time."""
        deadline = time.monotonic() + patience.total_seconds()
        while not self.store.check(list(keys)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _ended_well_everywhere(self, number: int) -> bool:
        keys = [f"outcome/{number}/{rank}" for rank in range(self.place.world_size)]
        return self.come(keys, MEETING) and all(json.loads(self.store.get(key))["status"] == "ok" for key in keys)

    @contextmanager
    def _watched(self, number: int, over: threading.Event) -> Iterator[None]:
        """Inside, the worker is ended if the task fails in another process: it might wait for that one forever."""
        store = self.place.store()  # a connection that waits can do nothing else

        def watch() -> None:
            try:
                store.wait([f"over/{number}"], _FOREVER)
                failed = store.get(f"over/{number}") == b"failed"
            except RuntimeError:  # the store is gone, and with it the process that hosted it
                failed = True
            with at_the_end:
                if failed and not ended.is_set():
                    over.set()
                    self.abandon()

        ended, at_the_end = threading.Event(), threading.Lock()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            with at_the_end:
                ended.set()
            if over.is_set():
                self.close()  # the next task needs a server that lives


class Leader(Participant):
    """The process of rank 0: what it is asked to measure, all measure together."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._numbers = itertools.count(1)
        self.environments: list[dict[str, Any]] = []

    def environment(self) -> dict[str, Any]:
        """The fingerprint of this machine; those of all processes go to `environments`.

        Raises:
            UserError: PyTorch can't be used on the machine of one of them.
        """
        found = super().environment()
        self.environments, self._local_ranks = [found], [self.place.local_rank]
        for rank in range(1, self.place.world_size):
            told = json.loads(self._wait(f"environment/{rank}", MEETING))
            if "refused" in told:
                raise UserError(f"process {rank}: {told['refused']}")
            self.environments.append(told["environment"])
            self._local_ranks.append(told["local_rank"])
        return found

    def check_gpus(self) -> None:
        """Raise a `UserError` if a process has no GPU of its own."""
        for rank, (environment, local_rank) in enumerate(zip(self.environments, self._local_ranks, strict=True)):
            there = len(environment["accelerators"])
            if local_rank >= there:
                raise UserError(
                    f"process {rank} is number {local_rank + 1} of its machine, which has {there} GPUs;"
                    " start as many processes a machine as it has GPUs, or use --device cpu"
                )

    def measure(
        self,
        cases: Sequence[Case],
        probe: str,
        *,
        options: Mapping[str, Any] | None = None,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        progress: Progress = lambda _: None,
    ) -> dict[str, Any]:
        """As in one process; each process does its part.

        Raises:
            UserError: what a worker found wrong, with the process that said so.
            RunEnded: a process died.
        """
        number = next(self._numbers)
        asked = dict(options or {})
        task = {
            "cases": [case.to_json() for case in cases], "probe": probe, "options": asked,
            "timeout_seconds": timeout_seconds,
        }  # fmt: skip
        with _store_is_there():
            self.store.set(f"task/{number}", json.dumps(task))
            answer = self.take_part(number, cases, probe, asked, timeout_seconds=timeout_seconds, progress=progress)
        if answer["status"] == "ok":
            ids = dict.fromkeys(environment["environment_id"] for environment in self.environments)
            for found in answer["found"]:
                found["metrics"]["rank_environment_ids"] = " ".join(ids)
            return answer
        rank, cause = self._cause(number)
        message = f"process {rank} of {self.place.world_size}: {cause['message']}"
        if cause["status"] == "refused":
            raise UserError(cause["message"] if rank == 0 else message)
        if cause["status"] in ("crashed", "left"):
            raise RunEnded(message)
        return {**cause, "message": message}

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._send_the_others_home()

    def _send_the_others_home(self) -> None:
        with suppress(RuntimeError):  # of a store that is gone: then they are going, too
            self.store.set(f"task/{next(self._numbers)}", "null")
            if self.place.hosts:  # they must have read it before this process, and with it the store, ends
                self.come([f"gone/{rank}" for rank in range(1, self.place.world_size)], timedelta(seconds=10))

    def _wait(self, key: str, patience: timedelta) -> bytes:
        with _store_is_there():
            if not self.come([key], patience):
                raise RunEnded(f"a process of this run does not answer ({key}); see what torchrun says of it")
            value: bytes = self.store.get(key)
        return value

    def _cause(self, number: int) -> tuple[int, dict[str, Any]]:
        """The process in which a task failed first, as far as can be told, and how."""
        outcomes: dict[int, dict[str, Any]] = {}
        for rank in range(self.place.world_size):
            try:
                outcomes[rank] = json.loads(self._wait(f"outcome/{number}/{rank}", _AFTER_THE_END))
            except RunEnded:  # also if torchrun, which noticed the same, tells this process to go meanwhile
                return rank, {"status": "crashed", "message": "it does not answer any more"}
        failed = {rank: outcome for rank, outcome in outcomes.items() if outcome["status"] != "ok"}
        first_hand = {rank: outcome for rank, outcome in failed.items() if outcome["status"] != "left"}
        return next(iter((first_hand or failed).items()))


def follow(place: Place) -> None:
    """Do what the process of rank 0 hands out, until it says that this was all.

    Raises:
        RunEnded: the store, and so another process, is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is lost with this process
    try:
        server = Participant(place)
        with server:
            store = server.store
            try:
                told: dict[str, Any] = {"environment": server.environment(), "local_rank": place.local_rank}
            except UserError as error:
                told = {"refused": str(error)}
            store.set(f"environment/{place.rank}", json.dumps(told))
            for number in itertools.count(1):
                store.wait([f"task/{number}"], _FOREVER)
                task = json.loads(store.get(f"task/{number}"))
                if task is None:
                    store.set(f"gone/{place.rank}", "")
                    return
                cases = [Case.from_json(fields) for fields in task["cases"]]
                here = [c.replace(device=f"cuda:{place.local_rank}") if c.device == "cuda" else c for c in cases]
                server.take_part(number, here, task["probe"], task["options"], timeout_seconds=task["timeout_seconds"])
    except RuntimeError as error:  # of the store; torch.distributed's errors are RuntimeErrors
        raise RunEnded(f"process {place.rank}: another process of this run is gone ({type(error).__name__})") from error


@contextmanager
def _store_is_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.distributed's errors are RuntimeErrors
        raise RunEnded(f"the processes of this run lost their store ({type(error).__name__})") from error


def check_command(command: str | None) -> None:
    """Raise a `UserError` for every command but ``train``: several processes would only do it several times."""
    if command != "train":
        raise UserError(f"`revbench {command}` runs in one process; only `revbench train` is for torchrun")


def _lost_another(message: str) -> bool:
    """Whether an error says that the other end of a connection is gone."""
    return (
        re.search(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|DistNetworkError|DistStoreError", message)
        is not None
    )
