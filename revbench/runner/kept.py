"""A worker server that stays between the calls of one process: only the first of them waits until PyTorch is loaded.

A worker is forked for each measurement all the same, and what it changes stays in it.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from revbench.runner.client import WorkerServer

_Surroundings = tuple[str | None, Mapping[str, str]]

_OF_EACH_TEST = "PYTEST_CURRENT_TEST"  # pytest sets it anew, and no worker reads it

_lock = threading.Lock()
_idle: list[tuple[_Surroundings, WorkerServer]] = []  # at most one


@contextmanager
def kept_server(variables: Mapping[str, str]) -> Iterator[WorkerServer]:
    """A server for one call; the one of the call before, if it is idle and neither the current folder nor the environment was
    changed since.

    It is kept until this process ends.

    Args:
        variables: of the environment, for the workers of this call.
    """
    now = _surroundings()
    server = _taken(now) or WorkerServer()
    server.variables = variables
    try:
        yield server
    finally:  # what ends an answer halfway ends the server, too
        with _lock:
            before = _idle[:]
            _idle[:] = [(now, server)]
        for _, other in before:
            other.close()


def _surroundings() -> _Surroundings:
    here = None
    with suppress(OSError):  # the current folder was removed
        here = os.getcwd()
    return here, {name: value for name, value in os.environ.items() if name != _OF_EACH_TEST}


def _taken(now: _Surroundings) -> WorkerServer | None:
    with _lock:
        before, _idle[:] = _idle[:], []
    for surroundings, server in before:
        if surroundings == now and server.is_running():
            return server
        server.close()
    return None


@atexit.register
def end_kept_server() -> None:
    """End the server that is idle, if there is one."""
    _taken((None, {}))


def _forget() -> None:
    """In a fork of this process: the server is the parent's."""
    for _, server in _idle:
        server.disown()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
