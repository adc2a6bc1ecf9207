"""The parent's side of the worker server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from revbench.case import Case
from revbench.errors import UserError

Progress = Callable[[Mapping[str, Any]], None]

DEFAULT_TIMEOUT_SECONDS = 600.0
# As `python -m revbench.runner.server`, but the current folder's files must not shadow what the server imports.
_START = "import sys; sys.path[:1] = [p for p in sys.path[:1] if p]; from revbench.runner.server import main; main()"


class WorkerServer:
    """A server process that forks a fresh worker for each (case, probe); a context manager.

    The parent never imports the code that is measured and never initialises CUDA; while a worker runs it
    waits blocked. The server ends with its parent, and a worker with its server.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> WorkerServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def environment(self) -> dict[str, Any]:
        """The fingerprint of this machine, taken in a worker."""
        answer = self._ask({"task": "environment", "timeout_seconds": DEFAULT_TIMEOUT_SECONDS}, lambda _: None)
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
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        progress: Progress = lambda _: None,
    ) -> dict[str, Any]:
        """Run one probe in a fresh process.

        Args:
            cases: what to measure: one, or several for a probe of groups.
            probe: a key of `revbench.runner.worker.PROBES` or `PROBES_OF_GROUPS`.
            options: the probe's own settings.
            timeout_seconds: after this the worker is killed and the status is ``timeout``.
            progress: called with each message of a probe that reports on its way.

        Returns:
            ``status``; if it is ``ok`` also ``found``: for each case ``metrics``, ``samples``, ``series``; else ``message`` and
            ``log_tail``, the end of what the worker printed.

        Raises:
            UserError: what the worker found wrong with the case.
        """
        request = {
            "task": "probe", "cases": [case.to_json() for case in cases], "probe": probe, "options": dict(options or {}),
            "timeout_seconds": timeout_seconds, "sys_path": [os.getcwd() if p == "" else p for p in sys.path],
        }  # fmt: skip
        answer = self._ask(request, progress)
        if answer["status"] == "refused":
            raise UserError(answer["message"])
        return answer

    def close(self) -> None:
        """End the server, and with it a worker that may still run."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def abandon(self) -> None:
        """From another thread: end the server at once, so that what waits for its answer gets that of a crash."""
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, request: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
        if self._process is None:
            # In a session of its own, so that Ctrl-C reaches the parent alone, which then ends the server.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(), start_new_session=True,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
            for line in self._process.stdout:
                message: dict[str, Any] = json.loads(line)
                if message["kind"] == "result":
                    return message
                progress(message)
        except BrokenPipeError:
            pass
        except BaseException:  # Ctrl-C above all: the answer still to come would be taken for the next one's
            self.close()
            raise
        code = self._process.wait()
        self.close()
        return {"kind": "result", "status": "crashed", "message": f"the worker server ended with exit code {code}"}


def _environment() -> dict[str, str]:
    """The parent's environment, with this very revbench first on the path (a bare working tree is not installed)."""
    import revbench

    home = os.path.dirname(os.path.dirname(os.path.abspath(revbench.__file__)))
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": home + (os.pathsep + path if path else "")}
