"""The options of `pytest --benchmark`, checked before anything is measured or written."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from revbench.errors import UserError, unknown
from revbench.results.journal import Journal, open_journal
from revbench.runner.client import WorkerServer
from revbench.runner.session import Session, resolve_device
from revbench.tiers import TIERS, Plan
from revbench.training.sources import count_classes, count_training_images, split_data_option

# pytest-benchmark's options that can't apply: the steps are timed in worker processes, by the device's clock.
REFUSED = {
    "--benchmark-disable": "leave --benchmark away instead",
    "--benchmark-skip": "leave --benchmark away instead",
    "--benchmark-only": "every test that measures is one already; choose with -k",
    "--benchmark-timer": "the worker's clock is used: device events, or the monotonic clock on the CPU",
    "--benchmark-calibration-precision": "every round is one training step",
    "--benchmark-min-time": "every round is one training step; use --benchmark-min-rounds or --benchmark-max-time",
    "--benchmark-disable-gc": "the worker does nothing but the steps",
    "--benchmark-cprofile": "the worker is another process; use torch.profiler on revbench.workload.build_workload",
}
SWITCHES = ("--benchmark-disable", "--benchmark-skip", "--benchmark-only")  # a project's addopts may hold them, too


@dataclass(frozen=True)
class Invocation:
    """An opened run: what is asked for and the session that measures it."""

    plan: Plan
    repeats: int
    time_options: dict[str, Any]
    session: Session
    journal: Journal
    server: WorkerServer

    def close(self) -> None:
        """End the worker server and let go of the run folder."""
        self.server.close()
        self.journal.close()


def open_invocation(option: Any, arguments: Sequence[str]) -> Invocation:
    """Check the options, open the run folder and find the device; a mistake is told at once and leaves no trace.

    Args:
        option: pytest's parsed options.
        arguments: the command line as given.

    Raises:
        UserError: an option that can't be or can't apply, a device that is not there, a folder that can't be
            written.
    """
    if getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no":
        raise UserError("--benchmark can't run under pytest-xdist: timings in parallel are of no use; leave -n away")
    for name, instead in REFUSED.items():
        attribute = name.lstrip("-").replace("-", "_")
        if _given(arguments, name) or (name in SWITCHES and getattr(option, attribute, False)):
            raise UserError(f"{name} can't apply with --benchmark: {instead}")
    check_tier_and_device(option)
    if option.revbench_repeats < 1:
        raise UserError(f"--revbench-repeats={option.revbench_repeats} must be at least 1")
    time_options = _time_options(option, arguments)
    data, data_path = split_data_option(option.revbench_data)
    journal = open_journal(
        option.revbench_resume, option.revbench_output, retry=option.revbench_retry, prefix="--revbench-"
    )
    server = WorkerServer()
    try:
        environment = server.environment()
        device = resolve_device(option.revbench_device, environment)
    except BaseException:
        server.close()
        journal.close()  # leaves no trace of a run without rows
        raise
    plan = Plan(
        tier=option.revbench_tier,
        device=device,
        data=data,
        data_path=data_path,
        num_classes=count_classes(data_path),
        images=count_training_images(data_path),
    )
    session = Session(journal, server, environment, retry=option.revbench_retry)
    return Invocation(plan, option.revbench_repeats, time_options, session, journal, server)


def check_tier_and_device(option: Any) -> None:
    """Raise a `UserError` for names that mean nothing anywhere, and for a part that can't be."""
    if option.revbench_shard:
        parse_shard(option.revbench_shard)
    if option.revbench_tier not in TIERS:
        raise unknown("tier", option.revbench_tier, TIERS)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", option.revbench_device):
        raise unknown("device", option.revbench_device, ("auto", "cpu", "cuda", "cuda:N"))


def parse_shard(text: str) -> tuple[int, int]:
    """Number and count of ``I/N``.

    Raises:
        UserError: another form, or I that is not among 1 to N.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--revbench-shard={text} must be I/N with I from 1 to N, as 2/8")
    return int(found[1]), int(found[2])


def in_shard(names: Sequence[str], shard: str) -> list[bool]:
    """Which of these belong to a shard: distinct names are dealt out in turn, so that parts are of like size."""
    number, count = parse_shard(shard)
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return [place[name] % count == number - 1 for name in names]


def _given(arguments: Sequence[str], name: str) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in arguments)


def _time_options(option: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """pytest-benchmark's options that the worker obeys, where the user gave them."""
    found: dict[str, Any] = {}
    if _given(arguments, "--benchmark-min-rounds"):
        found["min_rounds"] = int(option.benchmark_min_rounds)
    if _given(arguments, "--benchmark-max-time"):
        found["max_seconds"] = float(option.benchmark_max_time)
        if not 0 <= found["max_seconds"] < math.inf:
            raise UserError(f"--benchmark-max-time={option.benchmark_max_time} must be a number of seconds")
    if _given(arguments, "--benchmark-warmup-iterations"):
        found["warmup_rounds"] = int(option.benchmark_warmup_iterations)
    elif _given(arguments, "--benchmark-warmup") and not option.benchmark_warmup:
        found["warmup_rounds"] = 0
    return found
