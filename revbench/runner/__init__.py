"""Runs a (case, probe) in a worker process of its own; `measure` is the door for a script or a notebook."""

from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS, WorkerServer
from revbench.runner.opening import open_run, open_run_of_command
from revbench.runner.session import Session

__all__ = ["DEFAULT_TIMEOUT_SECONDS", "Session", "WorkerServer", "open_run", "open_run_of_command"]
