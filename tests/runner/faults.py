"""Factories with planted faults, for workers to run into."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn


def healthy() -> nn.Module:
    print("this must not reach the protocol")
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))


def hangs() -> nn.Module:
    if path := os.environ.get("REVBENCH_TEST_PID_FILE"):
        Path(path).write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def killed() -> nn.Module:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def exits() -> nn.Module:
    sys.exit(3)


def exits_hard() -> nn.Module:
    os._exit(5)


def dies_with_a_child_left() -> nn.Module:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(6)


def leaves_a_child_in_a_session_of_its_own() -> nn.Module:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:  # as daemons do it
            Path(os.environ["REVBENCH_TEST_PID_FILE"]).write_text(str(os.getpid()))
            time.sleep(600)
        os._exit(0)
    while not Path(os.environ["REVBENCH_TEST_PID_FILE"]).exists():
        time.sleep(0.01)
    return healthy()


def leaves_a_child_and_hangs() -> nn.Module:
    leaves_a_child_in_a_session_of_its_own()
    time.sleep(600)
    raise AssertionError("unreachable")


def raises() -> nn.Module:
    raise RuntimeError("a fault\nof two lines")


def out_of_memory() -> nn.Module:
    torch.empty(10**15)
    raise AssertionError("unreachable")


def unsupported() -> nn.Module:
    raise NotImplementedError("no kernel for this")


def not_a_module() -> int:
    return 3
