"""The pytest door: ``pytest --benchmark``, the fixture ``revbench`` and the marks ``revbench_cases`` and
``revbench_fail_on``.

Every pytest run of the environment loads this module, so it imports neither torch nor pandas nor any other part of
revbench until ``--benchmark`` is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from revbench.numerics.drift_record import DriftRecord
    from revbench.pytest_plugin.fixture import Measurer
    from revbench.pytest_plugin.session import BenchmarkSession

_ONLY_UNDER_BENCHMARK = "measure only under --benchmark"
_SESSION: pytest.StashKey[BenchmarkSession] = pytest.StashKey()


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
        help="fail if memory, operations, drift or the ratio to stored got worse than in this run, beyond their noise",
    )  # fmt: skip
    group.addoption(
        "--revbench-fail-on", action="append", metavar="THRESHOLD",
        help="with a baseline: what else fails, as 'step_seconds > 10%%'; may be repeated. Default: those of"
        " [tool.revbench.gate] in pyproject.toml",
    )  # fmt: skip
    group.addoption(
        "--revbench-repeats", type=int, default=1, metavar="N", help="launches of each case, interleaved (default: 1)"
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> Iterator[None]:
    """Run, before a project's conftest is loaded and without paths, the built-in suites in a session of their own."""
    arguments = list(early_config.invocation_params.args)
    given = parser.parse_known_args([str(a) for a in arguments])
    if early_config.known_args_namespace.benchmark and not given.file_or_dir and not given.help and not given.version:
        from revbench.errors import UserError
        from revbench.pytest_plugin.redirect import run_suites

        try:
            raise SystemExit(run_suites([str(a) for a in arguments] + ([] if given.benchmark else ["--benchmark"])))
        except UserError as error:
            raise _usage_error(error) from None
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marks; with ``--benchmark``, check the options and open the run."""
    config.addinivalue_line(
        "markers", "revbench_cases(of=function): parametrise `case` by function(plan); see revbench.suite_cases"
    )
    config.addinivalue_line(
        "markers",
        "revbench_fail_on(*thresholds): with a baseline, what fails of the cases that this test measures, as 'peak_bytes > 5.5%'",
    )
    option = config.option
    if option.revbench_baseline and not option.benchmark and not option.help:
        raise pytest.UsageError("--revbench-baseline compares what --benchmark measures; give that, too")
    if option.revbench_fail_on and not option.revbench_baseline and not option.help:
        raise pytest.UsageError("--revbench-fail-on is of a comparison; give --revbench-baseline, too")
    if not option.benchmark or option.help:
        return
    from revbench.errors import UserError

    try:
        if any(getattr(option, name, False) for name in _LISTS):
            from revbench.pytest_plugin.options import check_tier_and_device

            check_tier_and_device(option)
            return
        if not hasattr(option, "benchmark_min_rounds"):
            raise UserError("--benchmark needs pytest-benchmark; install it, or omit -p no:benchmark")
        from revbench.pytest_plugin.session import BenchmarkSession

        config.stash[_SESSION] = BenchmarkSession(config)
    except UserError as error:
        raise _usage_error(error) from None


_LISTS = ("collectonly", "showfixtures", "show_fixtures_per_test", "markers")  # options that measure nothing


def _usage_error(error: Exception) -> pytest.UsageError:
    """Returns what a user did wrong, as one line that a terminal shows as it is."""
    from revbench.terminal import plain

    return pytest.UsageError(plain(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Expect no row of a test that is skipped on its way."""
    report: Any = yield
    opened = item.config.stash.get(_SESSION, None)
    if (
        opened is not None
        and report.skipped
        and report.when == "call"
        and "revbench" in getattr(item, "fixturenames", ())
    ):
        opened.display.total -= 1
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what is about to be measured, and where."""
    if (opened := session.config.stash.get(_SESSION, None)) is not None:
        opened.announce()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test a case and launch."""
    if "revbench" not in metafunc.fixturenames and metafunc.definition.get_closest_marker("revbench_cases") is None:
        return
    from revbench.pytest_plugin.collection import default_plan, parametrise

    opened = metafunc.config.stash.get(_SESSION, None)
    plan = opened.plan if opened is not None else default_plan(metafunc.config)
    parametrise(metafunc, plan, opened.repeats if opened is not None else 1)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Omit the other parts of ``--revbench-shard``."""
    if config.option.benchmark:
        from revbench.pytest_plugin.collection import deselect_other_shards

        deselect_other_shards(config, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count what is going to be measured."""
    if (opened := session.config.stash.get(_SESSION, None)) is not None:
        from revbench.errors import UserError
        from revbench.pytest_plugin.collection import measures

        opened.display.total = sum(measures(item) and not any(item.iter_markers("skip")) for item in session.items)
        try:
            opened.check(session.items)
        except UserError as error:
            raise _usage_error(error) from None


@pytest.fixture
def _revbench_repeat() -> int:
    return 1


@pytest.fixture
def revbench(request: pytest.FixtureRequest, _revbench_repeat: int) -> Iterator[Measurer]:
    """Measures cases: ``revbench.measure(case, "time")``; skips the test without ``--benchmark``."""
    if _SESSION not in request.config.stash:
        pytest.skip(_ONLY_UNDER_BENCHMARK)
    with request.config.stash[_SESSION].measurer(request, _revbench_repeat) as measurer:
        yield measurer


@pytest.fixture
def revbench_drift() -> Callable[..., DriftRecord]:
    """Measures the drift of a network of your own, in this process, with or without ``--benchmark``.

    ``revbench_drift(model_factory, batch, ...)`` returns a record; its ``assert_within(angle_degrees=...,
    smooth_amplification=..., activation_error=...)`` fails with what was found. See `revbench.drift`.
    """
    from revbench.numerics.drift import drift

    return drift


def pytest_report_teststatus(report: pytest.TestReport, config: pytest.Config) -> tuple[str, str, str] | None:
    """Print no letter for a case that was measured, whose line is there already, or that can't be on this device."""
    if _SESSION not in config.stash:
        return None
    if report.skipped and not hasattr(report, "wasxfail"):
        return "skipped", "", "SKIPPED"
    return ("passed", "", "PASSED") if report.when == "call" and report.passed else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the worker server and compare with the baseline."""
    if (opened := session.config.stash.get(_SESSION, None)) is not None:
        session.exitstatus = opened.finish(exitstatus)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Show budgets, the rows that are not ok, what got worse, and the files of the report; without ``--benchmark`` that nothing
    was measured, which a job that forgets it would not notice."""
    if (opened := config.stash.get(_SESSION, None)) is not None:
        opened.summarise(terminalreporter)
        return
    skipped = [
        report for report in terminalreporter.stats.get("skipped", ()) if _ONLY_UNDER_BENCHMARK in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(f"revbench: nothing was measured; {len(skipped)} tests {_ONLY_UNDER_BENCHMARK}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Let go of the run."""
    if (opened := config.stash.get(_SESSION, None)) is not None:
        opened.close()
