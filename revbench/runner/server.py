"""The process that workers are forked from, with torch loaded once; `revbench.runner.client` starts it.

It reads requests from standard input and writes answers to standard output, one JSON object a line. It
runs no tensor operation and never touches CUDA, so that a fork of it is as good as a fresh
process and costs milliseconds. When its input closes, because its parent ended in whatever way, it kills
the worker and ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import psutil
import torch  # loaded once, for every worker

from revbench.runner.worker import work

# What a worker would spend seconds importing; an optimizer's first step imports torch._dynamo.
PRELOADED = (
    "revbench.models.networks", "revbench.probes.clock", "revbench.probes.drift", "revbench.probes.flops",
    "revbench.probes.memory", "revbench.workload", "torch._dynamo",
)  # fmt: skip

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LOG_TAIL_BYTES = 4000


class _ParentIsGone(Exception):
    """Nobody reads the answers."""


class _ToldToGo(Exception):
    """Says that SIGTERM came."""


def serve(requests: int, answers: int) -> None:
    """Answer requests until the input closes.

    Args:
        requests, answers: file descriptors.
    """
    for module in PRELOADED:
        importlib.import_module(module)
    pending = b""
    while True:
        while b"\n" not in pending:
            chunk = os.read(requests, 1 << 16)
            if not chunk:
                return
            pending += chunk
        line, _, pending = pending.partition(b"\n")
        try:
            if not attend(json.loads(line), requests, answers):
                return
        except _ParentIsGone:
            return


def attend(request: dict[str, Any], requests: int, answers: int) -> bool:
    """Fork a worker for one request and pass on what it sends. False if the parent went away meanwhile."""
    killed_before = oom_kills()
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as log:
        server = os.getpid()
        worker = os.fork()
        if worker == 0:
            os.close(read_end)
            _be_worker(request, server, write_end, log.fileno(), (requests, answers))
        os.close(write_end)
        try:
            result, parent_alive = _relay(request, read_end, requests, answers, worker)
        finally:
            os.close(read_end)
            _kill(worker)
            _, wait_status = os.waitpid(worker, 0)
            _kill_orphans()
        if not parent_alive:
            return False
        if result is None:
            result = explain(os.waitstatus_to_exitcode(wait_status), oom_kills() > killed_before)
        if result["status"] not in ("ok", "refused"):
            log.seek(max(log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES, 0))
            result["log_tail"] = log.read().decode(errors="replace")
    _answer(answers, result)
    return True


def _relay(
    request: Mapping[str, Any], messages: int, requests: int, answers: int, worker: int
) -> tuple[dict[str, Any] | None, bool]:
    """Pass progress on; return the worker's result, if there was one, and whether the parent still lives."""
    poll = select.poll()
    poll.register(messages, select.POLLIN)
    poll.register(requests, select.POLLIN)
    ended = None
    with contextlib.suppress(AttributeError, OSError):  # an older system has none
        ended = os.pidfd_open(worker)
    try:
        if ended is not None:
            poll.register(ended, select.POLLIN)
        return _relay_messages(poll, request, messages, requests, answers)
    finally:
        if ended is not None:
            os.close(ended)


def _relay_messages(
    poll: select.poll, request: Mapping[str, Any], messages: int, requests: int, answers: int
) -> tuple[dict[str, Any] | None, bool]:
    pending = b""
    limits = {name: request[name] or math.inf for name in ("timeout_seconds", "silence_seconds")}
    began = time.monotonic()
    silent_until = began + limits["silence_seconds"]
    while True:
        left = min(began + limits["timeout_seconds"], silent_until) - time.monotonic()
        ready = dict(poll.poll(min(max(left, 0), 3600) * 1000))  # what is there is read, however late this is
        if not ready and left <= 0:
            late = time.monotonic() >= began + limits["timeout_seconds"]
            said = (
                f"no result within {limits['timeout_seconds']:g} seconds" if late else "no word for too long: it hangs"
            )
            return {"kind": "result", "status": "timeout", "message": said}, True
        if not ready:
            continue
        if requests in ready:  # the parent sends nothing while it waits: this is the end of its input
            return None, False
        if messages not in ready:  # the worker ended, while a child of its own holds the pipe
            return None, True
        chunk = os.read(messages, 1 << 16)
        if not chunk:
            return None, True
        pending += chunk
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            message = json.loads(line)
            if message["kind"] == "result":
                return message, True
            _answer(answers, message)
            silent_until = time.monotonic() + max(limits["silence_seconds"], message.get("patience_seconds", 0))


def _be_worker(request: dict[str, Any], server: int, messages: int, log: int, inherited: tuple[int, int]) -> NoReturn:
    """Returns the forked process: never returns into the server's code."""
    try:
        os.setpgid(0, 0)
        _die_with(server)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        messages, log = os.dup(messages), os.dup(log)
        for descriptor in inherited:
            os.dup2(nothing, descriptor)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work(request, lambda message: _write(messages, message))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except BaseException:
        os._exit(70)  # EX_SOFTWARE
    raise AssertionError("unreachable")


def _die_with(server: int) -> None:
    """Have the kernel kill this process when the server ends; else it would run on and spoil later timings."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(70)


def _prctl(option: int, value: int) -> None:
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(option, value)


def _kill(worker: int) -> None:
    # Not reaped yet, so the number is still this worker's; its own children go with its group.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(worker, signal.SIGKILL)


def _kill_orphans() -> None:
    """Kill what a worker left behind, in whatever session: its parent being gone, it is this server's child now."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)


def explain(exit_code: int, oom_killed: bool) -> dict[str, Any]:
    """Returns the result of a worker that ended without one, from its exit code and whether the kernel killed for memory."""
    if exit_code == -signal.SIGKILL and oom_killed:
        return {"kind": "result", "status": "oom", "message": "killed by the kernel's out-of-memory killer"}
    how = f"by signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return {"kind": "result", "status": "crashed", "message": f"the worker ended {how} without a result"}


def oom_kills(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """Returns how often the kernel's out-of-memory killer struck in this process's control groups so far.

    Args:
        root: where control groups are mounted.
        membership: this process's control groups.

    Returns:
        The sum of the ``oom_kill`` counters found (version 2: ``memory.events``; version 1: ``memory.oom_control``).
    """
    files = set()
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                files.add(root / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                files.add(root / "memory" / path.lstrip("/") / "memory.oom_control")
    if not any(file.exists() for file in files):  # inside a container its own group is mounted at the root
        files = {root / "memory.events", root / "memory" / "memory.oom_control"}
    count = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    count += int(value)
    return count


def _answer(answers: int, message: Mapping[str, Any]) -> None:
    try:
        _write(answers, message)
    except OSError as error:
        raise _ParentIsGone from error


def _write(descriptor: int, message: Mapping[str, Any]) -> None:
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def _go(number: int, frame: object) -> None:
    """Raise, so that the worker and what it left are killed on the way out; see `attend`."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _ToldToGo


def main() -> None:
    """Serve on standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started this may ignore it: then nobody can be waited for
    signal.signal(signal.SIGTERM, _go)
    protocol_out = os.dup(1)
    os.dup2(2, 1)  # a stray print must not end up among the answers
    torch.set_num_interop_threads(1)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that a worker's orphans are found
    try:
        serve(0, protocol_out)
    except _ToldToGo:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(0)  # nothing is left to do, and PyTorch takes its time to unload
