"""The options of `pytest --benchmark`, checked before anything is measured or written."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from revbench.case import check_field
from revbench.errors import UserError, unknown
from revbench.pytest_plugin.collection import parse_shard
from revbench.tiers import TIERS

# pytest-benchmark's options that can't apply: the steps are timed in worker processes, by the device's clock.
REFUSED = {
    "--benchmark-disable": "omit --benchmark instead",
    "--benchmark-skip": "omit --benchmark instead",
    "--benchmark-only": "every test that measures is one already; choose with -k",
    "--benchmark-timer": "the worker's clock is used: device events, or the monotonic clock on the CPU",
    "--benchmark-calibration-precision": "every round is one training step",
    "--benchmark-min-time": "every round is one training step; use --benchmark-min-rounds or --benchmark-max-time",
    "--benchmark-disable-gc": "the worker does nothing but the steps",
    "--benchmark-cprofile": "the worker is another process; use torch.profiler on revbench.workload.build_workload",
}
SWITCHES = ("--benchmark-disable", "--benchmark-skip", "--benchmark-only")  # a project's addopts may hold them, too


def check_options(option: Any, arguments: Sequence[str]) -> None:
    """Raise a `UserError` for an option that can't be or can't apply.

    Args:
        option: pytest's parsed options.
        arguments: the command line as given.
    """
    if getattr(option, "numprocesses", None) or getattr(option, "dist", "no") != "no":
        raise UserError("--benchmark can't run under pytest-xdist: timings in parallel are of no use; omit -n")
    for name, instead in REFUSED.items():
        attribute = name.lstrip("-").replace("-", "_")
        if _given(arguments, name) or (name in SWITCHES and getattr(option, attribute, False)):
            raise UserError(f"{name} can't apply with --benchmark: {instead}")
    _check_what_is_done_at_the_end(option)
    check_tier_and_device(option)
    if option.revbench_repeats < 1:
        raise UserError(f"--revbench-repeats={option.revbench_repeats} must be at least 1")


_NUMBERED = "[0-9][0-9][0-9][0-9]_"  # what pytest-benchmark looks for unless a name is given
_GROUPINGS = ("group", "name", "func", "fullname", "fullfunc", "param")


def _check_what_is_done_at_the_end(option: Any) -> None:
    """See that what pytest-benchmark does with the samples, after everything was measured, can be done at all."""
    if option.benchmark_histogram and not all(find_spec(name) for name in ("pygal", "pygaljs")):
        raise UserError(
            "--benchmark-histogram needs pygal and pygaljs; install them with: pip install 'pytest-benchmark[histogram]'"
        )
    for grouping in option.benchmark_group_by.split(","):
        if grouping not in _GROUPINGS and not grouping.startswith("param:"):
            raise UserError(f"--benchmark-group-by: {unknown('grouping', grouping, (*_GROUPINGS, 'param:NAME'))}")
    file = option.benchmark_json  # opened already by an older pytest-benchmark
    if isinstance(file, (str, Path)) and not Path(file).absolute().parent.is_dir():
        raise UserError(f"--benchmark-json={file}: no such folder; make it, or name another")
    _check_saved_runs(option)


def _check_saved_runs(option: Any) -> None:
    """See that there is a place for saved runs, and what `--benchmark-compare-fail` compares with."""
    from pytest_benchmark.utils import get_machine_id, load_storage

    where = option.benchmark_storage
    try:
        storage = load_storage(where, logger=None, default_machine_id=get_machine_id(), netrc=option.benchmark_netrc)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--benchmark-storage={where}: {error}") from error
    if not option.benchmark_compare_fail:
        return
    asked = option.benchmark_compare
    if not asked:
        raise UserError("--benchmark-compare-fail is of a comparison; give --benchmark-compare, too")
    if not hasattr(storage, "query"):  # a server
        return
    try:
        there = storage.query(_NUMBERED if asked is True else asked)
    except ValueError as error:
        raise UserError(f"--benchmark-compare={asked}: {error}") from error
    if not there:
        what = "there is no run" if asked is True else f"{asked!r} is none of the runs"
        raise UserError(
            f"--benchmark-compare-fail would compare nothing: {what} in {where}; save one with --benchmark-save=NAME"
        )


# What asks for pytest-benchmark's own table of the samples, which is wider than most terminals.
_TABLE = ("columns", "sort", "group-by", "name", "verbose", "time-unit", "histogram", "compare")


def wants_table(option: Any, arguments: Sequence[str]) -> bool:
    """Tells whether somebody asked for pytest-benchmark's table: by `-v` or by one of its own options."""
    own = tuple(f"--benchmark-{name}" for name in _TABLE)
    return option.verbose > 0 or any(argument.startswith(own) for argument in arguments)


def check_tier_and_device(option: Any) -> None:
    """Raise a `UserError` for names that mean nothing anywhere, and for a part that can't be."""
    if option.revbench_shard:
        parse_shard(option.revbench_shard)
    if option.revbench_tier not in TIERS:
        raise unknown("tier", option.revbench_tier, TIERS)
    if option.revbench_device != "auto":
        check_field("device", option.revbench_device)


def _given(arguments: Sequence[str], name: str) -> bool:
    return any(argument == name or argument.startswith(f"{name}=") for argument in arguments)


def time_options(option: Any, arguments: Sequence[str]) -> dict[str, Any]:
    """Returns pytest-benchmark's options that the worker obeys, where the user gave them."""
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
