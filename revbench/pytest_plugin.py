"""The pytest door: ``pytest --benchmark``, the fixture ``revbench`` and the mark ``revbench_cases``.

Every pytest run of the environment loads this module, so it imports neither torch nor pandas nor any other part of
revbench until ``--benchmark`` is given.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from revbench.compare import Comparison
    from revbench.numerics.record import DriftRecord
    from revbench.pytest_support.display import Display
    from revbench.pytest_support.fixture import Measurer
    from revbench.pytest_support.options import Invocation
    from revbench.results.runs import Run

_INVOCATION: pytest.StashKey[Invocation] = pytest.StashKey()
_DISPLAY: pytest.StashKey[Display] = pytest.StashKey()
_BASELINE: pytest.StashKey[Run] = pytest.StashKey()
_COMPARISON: pytest.StashKey[Comparison] = pytest.StashKey()
_USED_SECONDS = pytest.StashKey[dict[str, list[float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the options."""
    group = parser.getgroup("revbench", "reversible networks: memory, time and drift (revbench)")
    group.addoption(
        "--benchmark", action="store_true",
        help="run revbench's built-in suites (or the paths given) and render a report",
    )  # fmt: skip
    group.addoption("--revbench-tier", default="quick", metavar="TIER", help="quick (default), full or paper")
    group.addoption("--revbench-device", default="auto", metavar="DEVICE", help="auto (default), cpu, cuda or cuda:N")
    group.addoption(
        "--revbench-data", default="digits", metavar="DATA",
        help="digits (default), cifar10, cifar100, imagenet, or a folder of images as PATH or LABEL=PATH",
    )  # fmt: skip
    group.addoption("--revbench-output", metavar="DIR", help="the run folder (default: reports/<time>)")
    group.addoption("--revbench-resume", metavar="DIR", help="finish this run, measuring nothing twice")
    group.addoption(
        "--revbench-retry",
        action="store_true",
        help="with resume: measure again what crashed, timed out or lacked memory",
    )
    group.addoption(
        "--revbench-shard", metavar="I/N",
        help="measure the I-th of N parts of the cases, the same parts everywhere; join them with `revbench merge`",
    )  # fmt: skip
    group.addoption(
        "--revbench-baseline", metavar="DIR",
        help="fail if drift got worse than in this run, beyond its noise",
    )  # fmt: skip
    group.addoption(
        "--revbench-repeats", type=int, default=1, metavar="N", help="launches of each case, interleaved (default: 1)"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Iterator[None]:
    """Before a project's conftest is loaded: without paths, run the built-in suites in a session of their own."""
    arguments = list(early_config.invocation_params.args)
    given = parser.parse_known_args([str(a) for a in arguments])
    if early_config.known_args_namespace.benchmark and not given.file_or_dir and not given.help and not given.version:
        from revbench.errors import UserError
        from revbench.pytest_support.redirect import run_suites

        try:
            raise SystemExit(run_suites([str(a) for a in arguments] + ([] if given.benchmark else ["--benchmark"])))
        except UserError as error:
            raise _usage_error(error) from None
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark; with ``--benchmark``, check the options and open the run."""
    config.addinivalue_line(
        "markers", "revbench_cases(of=function): parametrise `case` by function(plan); see revbench.tiers"
    )
    option = config.option
    if option.revbench_baseline and not option.benchmark and not option.help:
        raise pytest.UsageError("--revbench-baseline compares what --benchmark measures; give that, too")
    if not option.benchmark or option.help:
        return
    from revbench.errors import UserError

    if any(
        getattr(option, name, False) for name in ("collectonly", "showfixtures", "show_fixtures_per_test", "markers")
    ):
        from revbench.pytest_support.options import check_tier_and_device

        try:
            check_tier_and_device(option)
        except UserError as error:
            raise _usage_error(error) from None
        return
    from revbench.pytest_support.display import Display
    from revbench.pytest_support.options import open_invocation
    from revbench.results.runs import read_run

    if not hasattr(option, "benchmark_min_rounds"):
        raise pytest.UsageError("--benchmark needs pytest-benchmark; install it, or leave -p no:benchmark away")
    try:
        if option.revbench_baseline:
            config.stash[_BASELINE] = read_run(Path(option.revbench_baseline))
        invocation = open_invocation(config.option, _arguments(config))
    except UserError as error:
        raise _usage_error(error) from None
    config.stash[_INVOCATION] = invocation
    config.stash[_DISPLAY] = Display(config)
    config.stash[_USED_SECONDS] = {}


def _usage_error(error: Exception) -> pytest.UsageError:
    """What a user did wrong, as one line that a terminal shows as it is."""
    from revbench.terminal import plain

    return pytest.UsageError(plain(error))


def _arguments(config: pytest.Config) -> list[str]:
    """The command line, after what the project and the environment put before it."""
    before = [*config.getini("addopts"), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    return [*map(str, before), *map(str, config.invocation_params.args)]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what is about to be measured, and where."""
    invocation = session.config.stash.get(_INVOCATION, None)
    if invocation is None:
        return
    from revbench.environment import summarise

    plan = invocation.plan
    show = session.config.stash[_DISPLAY].line
    show(f"revbench: tier {plan.tier}, device {plan.device}, data {plan.data}, run folder {invocation.journal.folder}")
    show(summarise(invocation.session.environment))
    for note in invocation.journal.notes:
        show(note, yellow=True)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a case and launch; the launch outermost, so that the launches of a suite's cases interleave."""
    invocation = metafunc.config.stash.get(_INVOCATION, None)
    if "revbench" in metafunc.fixturenames and invocation is not None and invocation.repeats > 1:
        repeats = range(1, invocation.repeats + 1)
        metafunc.parametrize("_revbench_repeat", repeats, ids=[f"launch {i}" for i in repeats])
    mark = metafunc.definition.get_closest_marker("revbench_cases")
    if mark is not None:
        cases = mark.kwargs["of"](invocation.plan if invocation is not None else _default_plan(metafunc.config))
        if not cases:
            nothing = pytest.mark.skip(reason="no case of this suite can be measured on this device")
            metafunc.parametrize("case", [pytest.param(None, marks=nothing)], ids=["none"])
            return
        metafunc.parametrize("case", cases, ids=[case.id for case in cases])


def _default_plan(config: pytest.Config) -> Any:
    """The plan of ``--collect-only``, or of a suite collected without ``--benchmark``: nothing is opened for it."""
    from revbench.tiers import Plan

    device = config.option.revbench_device
    return Plan(
        tier=config.option.revbench_tier,
        device="cpu" if device == "auto" else device,
        data="digits",
        data_path="digits",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--revbench-shard`` leave the other parts away; the launches of a case stay together."""
    if not config.option.benchmark or not config.option.revbench_shard:
        return
    from revbench.pytest_support.options import in_shard

    kept = in_shard([_without_launch(item) for item in items], config.option.revbench_shard)
    left = [item for item, mine in zip(items, kept, strict=True) if not mine]
    items[:] = [item for item, mine in zip(items, kept, strict=True) if mine]
    config.hook.pytest_deselected(items=left)


def _without_launch(item: pytest.Item) -> str:
    """What an item measures, whichever launch it is of."""
    callspec = getattr(item, "callspec", None)
    case = getattr(callspec, "params", {}).get("case")
    name = getattr(item, "originalname", item.name)
    return f"{item.path.name}::{name}::{case.id if case is not None else item.name}"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count what is going to be measured."""
    display = session.config.stash.get(_DISPLAY, None)
    if display is not None:
        display.total = sum("revbench" in getattr(item, "fixturenames", ()) for item in session.items)


@pytest.fixture
def _revbench_repeat() -> int:
    return 1


@pytest.fixture
def revbench(request: pytest.FixtureRequest, _revbench_repeat: int) -> Iterator[Measurer]:
    """Measures cases: ``revbench.measure(case, "time")``; skips the test without ``--benchmark``."""
    config = request.config
    if _INVOCATION not in config.stash:
        pytest.skip("measures only under --benchmark")
    from revbench.pytest_support.fixture import Measurer

    began = time.perf_counter()
    yield Measurer(request, config.stash[_INVOCATION], config.stash[_DISPLAY], _revbench_repeat)
    used = config.stash[_USED_SECONDS].setdefault(request.path.name, [0.0, 0.0])
    used[0] += time.perf_counter() - began
    used[1] = getattr(request.module, "BUDGET_SECONDS", 0.0) * config.stash[_INVOCATION].repeats


@pytest.fixture
def revbench_drift() -> Callable[..., DriftRecord]:
    """Measures the drift of a network of your own, in this process, with or without ``--benchmark``.

    ``revbench_drift(model_factory, batch, ...)`` returns a record; its ``assert_within(angle_degrees=...,
    smooth_amplification=..., activation_error=...)`` fails with what was found. See `revbench.drift`.
    """
    from revbench.numerics.network import drift

    return drift


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """No dot for a measured case: its line is there already."""
    if _INVOCATION in config.stash and report.when == "call" and report.passed:
        return "passed", "", "PASSED"
    return None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the worker server, also after Ctrl-C; a session that measured nothing is a mistake."""
    invocation = session.config.stash.get(_INVOCATION, None)
    if invocation is None:
        return
    invocation.server.close()
    measured = invocation.journal.run.rows
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED or (exitstatus == pytest.ExitCode.OK and not measured):
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        session.config.stash[_DISPLAY].line("ERROR: no case was selected; look at -k, -m and the paths given", red=True)
        return
    baseline = session.config.stash.get(_BASELINE, None)
    if baseline is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    from revbench.compare import compare_runs
    from revbench.errors import UserError

    try:
        comparison = compare_runs(baseline, invocation.journal.run)
    except UserError as error:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR
        session.config.stash[_DISPLAY].line(f"ERROR: {error}", red=True)
        return
    session.config.stash[_COMPARISON] = comparison
    if comparison.failed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Budgets, the rows that are not ok, and the files of the report."""
    invocation = config.stash.get(_INVOCATION, None)
    if invocation is None:
        return
    from revbench.errors import UserError
    from revbench.report import write_report
    from revbench.results.schema import standing
    from revbench.terminal import printable

    for suite, (used, budget) in config.stash[_USED_SECONDS].items():
        of = f" of a budget of {budget:.0f} s" if budget else ""
        terminalreporter.write_line(f"{suite:<22} {used:>6.1f} s{of}", yellow=bool(budget) and used > budget)
    rows = standing(invocation.journal.run.rows)
    bad = [row for row in rows if not row.ok]
    if bad:
        statuses = ", ".join(f"{sum(r.status == s for r in bad)} {s}" for s in sorted({r.status for r in bad}))
        terminalreporter.write_line(f"{len(bad)} of {len(rows)} rows have no figures: {statuses}", red=True)
    comparison = config.stash.get(_COMPARISON, None)
    for line in comparison.lines() if comparison is not None else ():
        failed = line.startswith("WORSE") or (line.startswith("gate ") and comparison is not None and comparison.failed)
        terminalreporter.write_line(printable(line), red=failed, yellow=line.startswith("UNCLEAR"))
    if not rows:
        return
    try:
        written = write_report([invocation.journal.folder], invocation.journal.folder)
    except (UserError, ImportError) as error:
        again = f"; render it elsewhere with: revbench report {invocation.journal.folder}"
        said = f"no report: {error}{again if isinstance(error, ImportError) else ''}"
        terminalreporter.write_line(printable(said), red=True)
        return
    for note in written.notes:
        terminalreporter.write_line(printable(note), yellow=True)
    for path in written.paths:
        terminalreporter.write_line(printable(f"{path.suffix[1:].upper():<5} {path}"))


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the worker server and the run folder, and name the report as the last word."""
    invocation = config.stash.get(_INVOCATION, None)
    if invocation is None:
        return
    invocation.close()
    report = invocation.journal.folder / "report.html"
    if report.is_file():
        from revbench.terminal import say

        say(f"report: {report}")
