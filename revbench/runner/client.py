"""The parent's side of the worker server."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from revbench.case import Case
from revbench.errors import RunEnded, UserError
from revbench.imports import path_for
from revbench.runner.other_tree import OtherTree

Progress = Callable[[Mapping[str, Any]], None]

DEFAULT_TIMEOUT_SECONDS = 600.0
_MARK = "REVBENCH_FAMILY"  # a variable of the environment
GRACE_SECONDS = 60.0  # beyond a worker's deadline, in which the server must have said so
# Nothing is imported from the current folder, which PYTHONPATH may name.
_START = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; from revbench.imports import forget_current_folder;"
    " forget_current_folder(); from revbench.runner.server import main; main()"
)


class WorkerServer:
    """A server process that forks a fresh worker for each (case, probe); a context manager.

    The parent never imports the code that is measured and never initialises CUDA; while a worker runs it
    waits blocked. The server ends with its parent, and a worker with its server.

    Args:
        tree: from which it imports what this process would import from another; see `OtherTree`.

    Attributes:
        variables: of the environment, for the workers from now on.
    """

    def __init__(self, tree: OtherTree | None = None) -> None:
        self.variables: Mapping[str, str] = {}
        self._tree = tree or OtherTree()
        self._process: subprocess.Popen[bytes] | None = None
        self._family = secrets.token_hex(16)  # in the environment of all that descends from the server
        self._starting = threading.Lock()
        self._abandoned = False

    def __enter__(self) -> WorkerServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def environment(self) -> dict[str, Any]:
        """Returns the fingerprint of this machine, taken in a worker.

        Raises:
            UserError: PyTorch can't be used here, or processes can't be forked (Windows).
            RunEnded: something ended the server.
        """
        request = {"task": "environment", "timeout_seconds": DEFAULT_TIMEOUT_SECONDS, "silence_seconds": None}
        answer = self._ask(request, lambda _: None)
        if answer.get("signal"):
            raise RunEnded(f"{answer['message']} before anything was measured")
        if answer["status"] != "ok":
            raise UserError(f"PyTorch can't be used on this machine: {answer['message']}")
        environment: dict[str, Any] = answer["environment"]
        return environment

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
        """Run one probe in a fresh process.

        Args:
            cases: what to measure: one, or several for a probe of groups.
            probe: its name (`revbench.runner.registry`).
            options: the probe's own settings.
            timeout_seconds: after this the worker is killed and the status is ``timeout``; None sets no such limit.
            silence_seconds: the same after so long without a message of a probe that reports on its way; a message may
                ask for more with ``patience_seconds``, until the next one.
            progress: called with each message of a probe that reports on its way.

        Returns:
            ``status``; if it is ``ok`` also ``measurements``: for each case ``metrics``, ``samples``, ``series``; else
            ``message`` and ``log_tail``, the end of what the worker printed.

        Raises:
            UserError: what the worker found wrong with the case, or processes can't be forked (Windows).
        """
        for name, value in (("timeout_seconds", timeout_seconds), ("silence_seconds", silence_seconds)):
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{name}={value} must be a number of more than 0")
        models = [case.model for case in cases]
        request = {
            "task": "probe", "cases": [case.to_json() for case in cases], "probe": probe, "options": dict(options or {}),
            "timeout_seconds": timeout_seconds, "silence_seconds": silence_seconds,
            "sys_path": [self._tree.moved(entry) for entry in path_for(models, needed=bool(self.variables))],
            "variables": dict(self.variables),
        }  # fmt: skip
        answer = self._ask(request, progress)
        if answer["status"] == "refused":
            raise UserError(answer["message"])
        return answer

    def close(self) -> None:
        """End the server, and with it a worker that may still run."""
        process, self._process = self._process, None
        self._abandoned = False
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            _kill_family(process)
            process.wait()
        process.stdout.close()

    def is_running(self) -> bool:
        """Tells whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def disown(self) -> None:
        """Let go of the process without ending it: it is another process's child."""
        process, self._process = self._process, None
        if process is not None:
            process.returncode = 0
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def abandon(self) -> None:
        """End the server at once, from another thread, so that what waits for its answer gets that of a crash."""
        with self._starting:
            self._abandoned = True  # one that is not there yet ends as soon as it is
            if (process := self._process) is not None:
                _kill_family(process)

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if not hasattr(os, "fork"):
                raise UserError(
                    "revbench forks a process for each measurement, which Windows can't; run it inside WSL2"
                )
            if self._process is None:
                # In a session of its own, so that Ctrl-C reaches the parent alone, which then ends the server.
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START], bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    env={**_environment(self._tree), _MARK: self._family}, start_new_session=True,
                    cwd=self._tree.current_folder(),
                )  # fmt: skip
                assert self._process.stdin is not None
                os.set_blocking(self._process.stdin.fileno(), False)
            if self._abandoned:
                self._process.kill()
            return self._process

    def _ask(self, request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        process = self._running()
        limits = [value for value in (request["timeout_seconds"], request["silence_seconds"]) if value is not None]
        patience = (min(limits) if limits else math.inf) + GRACE_SECONDS
        try:
            deadline = time.monotonic() + (request["timeout_seconds"] or math.inf) + GRACE_SECONDS
            _send(process, (json.dumps(request) + "\n").encode(), time.monotonic() + GRACE_SECONDS)
            for message in _messages(process, deadline, patience):
                if message["kind"] == "result":
                    return message
                if message["kind"] == "progress":  # else it only says that the worker lives
                    progress(message)
        except BrokenPipeError:
            pass
        except TimeoutError:
            _kill_family(process)
            process.wait()
            self.close()
            said = "the worker server did not answer in time (was it stopped?)"
            return {"kind": "result", "status": "timeout", "message": said}
        except BaseException:  # Ctrl-C above all: the answer still to come would be taken for the next one's
            self.close()
            raise
        code = process.wait()
        _kill_marked(self._family)
        self.close()
        how = f"was ended by signal {_name_of(-code)}" if code < 0 else f"ended with exit code {code}"
        return {"kind": "result", "status": "crashed", "message": f"the worker server {how}", "signal": max(-code, 0)}


def _kill_marked(family: str) -> None:
    """Kill what a server left behind that somebody killed: nobody is its parent any more, but it still has its mark."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(_MARK) == family:
                process.kill()


def _send(process: subprocess.Popen[bytes], data: bytes, deadline: float) -> None:
    """Write a request.

    Raises:
        TimeoutError: nobody reads it.
        BrokenPipeError: the server is gone.
    """
    assert process.stdin is not None
    descriptor = process.stdin.fileno()
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    while data:
        if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
            raise TimeoutError
        data = data[os.write(descriptor, data) :]


def _messages(process: subprocess.Popen[bytes], deadline: float, patience: float) -> Iterator[dict[str, Any]]:
    """Returns the messages of the server, until it is gone.

    Args:
        process: of the server.
        deadline: on the monotonic clock, for all of them.
        patience: seconds from one to the next; a message may ask for more.

    Raises:
        TimeoutError: one was not there in time.
    """
    assert process.stdout is not None
    descriptor, pending = process.stdout.fileno(), b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    next_one = time.monotonic() + patience
    while True:
        left = min(deadline, next_one) - time.monotonic()
        if not poll.poll(min(max(left, 0), 3600) * 1000):  # what is there is read, however late this process looks
            if left <= 0:
                raise TimeoutError
            continue
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            return
        pending += chunk
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            message: dict[str, Any] = json.loads(line)
            yield message
            next_one = time.monotonic() + max(patience, message.get("patience_seconds", 0) + GRACE_SECONDS)


def _kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and all that descends from it, whatever session it went to."""
    import psutil

    family = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for one in family:
        with contextlib.suppress(psutil.Error):
            one.kill()


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _environment(tree: OtherTree) -> dict[str, str]:
    """Returns the parent's environment, with this very revbench first on the path (a bare working tree is not installed), or that
    of another tree."""
    import revbench

    home = os.path.dirname(os.path.dirname(os.path.abspath(revbench.__file__)))
    paths = [home, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(tree.moved, paths))}
