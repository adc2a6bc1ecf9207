"""One training on many processes, started by ``torchrun``: the first says which is next and writes, the others take part.

Each process reads the same command line, so each knows the trainings that it asks for and is the parent of a worker server of
its own. The parents meet at torchrun's store, where anybody who reaches its port can write. So it carries nothing that is run:
the number of the next training and its digest, which each process holds against its own command line; how it ended in each;
and that it is over. The workers meet there, too, and do the training.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from revbench.case import Case, is_gpu
from revbench.errors import RunEnded, UserError
from revbench.launch.tasks import Task, own_task, read_outcome, read_words
from revbench.results.wire import check_environment
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, Progress, WorkerServer
from revbench.runner.session import resolve_device
from revbench.training.declared import TRAINING
from revbench.training.rendezvous import MEETING, Rank

_FOREVER = timedelta(days=30)
_AFTER_THE_END = timedelta(seconds=60)  # in which a process tells how it ended, once another has


class Participant(WorkerServer):
    """A worker server that takes part in trainings with others.

    Args:
        rank: of this process.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self.rank = rank
        self.store = rank.store(first=True)

    def take_part(self, number: int, task: Task, progress: Progress = lambda _: None) -> dict[str, Any]:
        """Run this process's part of a task, until it is done or has failed anywhere.

        Returns:
            As `WorkerServer.measure`, with the statuses ``refused`` and ``left`` (because another process failed) as well. The
            others are told of it.
        """
        over = threading.Event()
        with self._watched(number, over):
            try:
                answer = WorkerServer.measure(
                    self, [self.rank.on_its_gpu(task.case)], TRAINING.name,
                    options={**task.options, "rendezvous": self.rank.of_worker(number)},
                    timeout_seconds=None, silence_seconds=task.silence_seconds, progress=progress,
                )  # fmt: skip
            except UserError as error:
                answer = {"status": "refused", "message": str(error)}
        if answer["status"] == "crashed" and (over.is_set() or _lost_another(answer["message"])):
            answer["status"] = "left"
        told = {name: answer.get(name) for name in ("status", "message", "log_tail")}
        self.store.set(f"outcome/{number}/{self.rank.number}", json.dumps(told))
        if answer["status"] != "ok":
            self.store.set(f"over/{number}", "failed")
        elif self.rank.number == 0:
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
        keys = [f"outcome/{number}/{rank}" for rank in range(self.rank.world_size)]
        return self.come(keys, MEETING) and all(read_outcome(self.store.get(key))["status"] == "ok" for key in keys)

    @contextmanager
    def _watched(self, number: int, over: threading.Event) -> Iterator[None]:
        """Inside, the worker is ended if the task fails in another process: it might wait for that one forever."""
        store = self.rank.store()  # a connection that waits can do nothing else

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
    """The process of rank 0: what it is asked to train, all train together.

    Attributes:
        environments: of all processes, once `environment` was called.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank)
        self._numbers = itertools.count(1)
        self.environments: list[dict[str, Any]] = []
        self._digests: Sequence[str] = ()

    def environment(self) -> dict[str, Any]:
        """Returns the fingerprint of this machine; those of all processes go to `environments`.

        Raises:
            UserError: PyTorch can't be used on the machine of one of them.
        """
        found = super().environment()
        self.environments, self._local_ranks = [found], [self.rank.local_rank]
        for rank in range(1, self.rank.world_size):
            told = read_words(self._wait(f"environment/{rank}", MEETING))
            if "refused" in told:
                raise UserError(f"process {rank}: {told['refused']}")
            try:
                self.environments.append(check_environment(told["environment"]))
                self._local_ranks.append(int(told["local_rank"]))
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise RunEnded(f"process {rank} tells nothing that can be read of its machine ({error})") from error
        return found

    def prepare(self, tasks: Sequence[Task], device: str) -> None:
        """Take note of the trainings that the command line asks for.

        Raises:
            UserError: they are on GPUs, and a process has none of its own.
        """
        self._digests = [task.digest for task in tasks]
        if not is_gpu(device):
            return
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
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        silence_seconds: float | None = None,
        progress: Progress = lambda _: None,
    ) -> dict[str, Any]:
        """Measures as in one process; each process does its part. It is always one of the trainings of the command line.

        Raises:
            UserError: what a worker found wrong, with the process that said so.
            RunEnded: a process died.
        """
        (case,) = cases
        assert probe == TRAINING.name
        assert silence_seconds is not None
        task = Task(case, dict(options or {}), silence_seconds)
        number = next(self._numbers)
        with _store_is_there():
            next_one = {"index": self._digests.index(task.digest), "digest": task.digest}
            self.store.set(f"task/{number}", json.dumps(next_one))
            answer = self.take_part(number, task, progress)
        if answer["status"] == "ok":
            ids = dict.fromkeys(environment["environment_id"] for environment in self.environments)
            for found in answer["measurements"]:
                found["metrics"][TRAINING["rank_environment_ids"].name] = " ".join(ids)
            return answer
        rank, cause = self._cause(number)
        message = f"process {rank} of {self.rank.world_size}: {cause['message']}"
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
            self.store.set(f"task/{next(self._numbers)}", "{}")
            if self.rank.hosts:  # they must have read it before this process, and with it the store, ends
                self.come([f"gone/{rank}" for rank in range(1, self.rank.world_size)], timedelta(seconds=10))

    def _wait(self, key: str, patience: timedelta) -> bytes:
        with _store_is_there():
            if not self.come([key], patience):
                raise RunEnded(f"a process of this run does not answer ({key}); see what torchrun says of it")
            value: bytes = self.store.get(key)
        return value

    def _cause(self, number: int) -> tuple[int, dict[str, Any]]:
        """Returns the process in which a task failed first, as far as can be told, and how."""
        outcomes: dict[int, dict[str, Any]] = {}
        for rank in range(self.rank.world_size):
            try:
                outcomes[rank] = read_outcome(self._wait(f"outcome/{number}/{rank}", _AFTER_THE_END))
            except RunEnded:  # also if torchrun, which noticed the same, tells this process to go meanwhile
                return rank, {"status": "crashed", "message": "it does not answer any more"}
        failed = {rank: outcome for rank, outcome in outcomes.items() if outcome["status"] != "ok"}
        first_hand = {rank: outcome for rank, outcome in failed.items() if outcome["status"] != "left"}
        return next(iter((first_hand or failed).items()))


def follow(rank: Rank, tasks_on: Callable[[str], Sequence[Task]], device: str) -> None:
    """Take part in what the process of rank 0 says is next, until it says that this was all.

    Args:
        rank: of this process.
        tasks_on: the trainings that its own command line asks for, on this device.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        RunEnded: the store, and so another process, is gone, or it names another training than the command line.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is lost with this process
    try:
        server = Participant(rank)
        with server:
            store, tasks = server.store, []
            try:
                environment = server.environment()
                tasks = list(tasks_on(resolve_device(device, environment)))
                told: dict[str, Any] = {"environment": environment, "local_rank": rank.local_rank}
            except UserError as error:  # the first process says it
                told = {"refused": str(error)}
            store.set(f"environment/{rank.number}", json.dumps(told))
            for number in itertools.count(1):
                store.wait([f"task/{number}"], _FOREVER)
                asked = read_words(store.get(f"task/{number}"))
                if not asked:
                    store.set(f"gone/{rank.number}", "")
                    return
                server.take_part(number, own_task(asked, tasks, rank.number))
    except RuntimeError as error:  # of the store; torch.distributed's errors are RuntimeErrors
        raise RunEnded(
            f"process {rank.number}: another process of this run is gone ({type(error).__name__})"
        ) from error


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
    """Tells whether an error says that the other end of a connection is gone."""
    return (
        re.search(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|DistNetworkError|DistStoreError", message)
        is not None
    )
