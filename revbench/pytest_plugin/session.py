"""One `pytest --benchmark`: the run that it opens, what its hooks do with it, and what they say at the end."""

from __future__ import annotations

import shlex
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import environ
from pathlib import Path
from typing import Any

import pytest

from revbench.compare import (
    Comparison,
    compare_runs,
    read_finished,
    thresholds_of,
    thresholds_of_project,
    write_gate,
)
from revbench.errors import UserError
from revbench.pytest_plugin.collection import case_of, check_grouping, measures
from revbench.pytest_plugin.display import Display
from revbench.pytest_plugin.fixture import Measurer
from revbench.pytest_plugin.marks import MarkedThresholds
from revbench.pytest_plugin.options import check_options, time_options, wants_table
from revbench.report import Evidence, write_report
from revbench.report.headlines import WIDTH, headlines, largest_of, lines_of
from revbench.report.ways import advice
from revbench.results.machines import environments_alike
from revbench.results.runs import read_run
from revbench.results.schema import Row, standing
from revbench.runner.environment import summarise
from revbench.runner.opening import open_run
from revbench.runner.registry import registry
from revbench.terminal import printable, say
from revbench.tiers import Plan
from revbench.training.sources import FACTORY, count_classes, count_training_images, is_text, split_data_option


class BenchmarkSession:
    """The opened run of one invocation.

    A mistake in the options is told before anything is written.

    Args:
        config: pytest's.

    Attributes:
        plan: tier, device and data.
        repeats: launches of each case.
        time_options: settings of the probe ``time`` that the command line gives.

    Raises:
        UserError: an option that can't be or can't apply, a device that is not there, a folder that can't be read or written.
    """

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        before = [*config.getini("addopts"), *shlex.split(environ.get("PYTEST_ADDOPTS", ""))]
        arguments = [*map(str, before), *map(str, config.invocation_params.args)]
        self._baseline = read_finished(Path(option.revbench_baseline)) if option.revbench_baseline else None
        given = option.revbench_fail_on
        self._given = thresholds_of(given) if given else []
        self._of_project = (
            thresholds_of_project(config.invocation_params.dir) if self._baseline is not None and not given else []
        )
        self._marked = MarkedThresholds()
        self._group_by: str = option.benchmark_group_by
        check_options(option, arguments)
        self.time_options = time_options(option, arguments)
        if not wants_table(option, arguments):
            option.benchmark_quiet = True  # before pytest-benchmark looks: our `pytest_configure` comes first
        self.repeats: int = option.revbench_repeats
        label, source = split_data_option(option.revbench_data)
        if source == FACTORY or is_text(source):
            raise UserError(
                f"data: {label!r} holds no images; the suites' networks for images are trained on --revbench-data"
            )
        self._open = ExitStack()
        self.session = self._open.enter_context(
            open_run(
                output=option.revbench_output, resume=option.revbench_resume, retry=option.revbench_retry,
                device=option.revbench_device, prefix="--revbench-",
            )
        )  # fmt: skip
        self.plan = Plan(
            tier=option.revbench_tier, device=self.session.device, data=label, data_path=source,
            num_classes=count_classes(source), images=count_training_images(source),
        )  # fmt: skip
        self.display = Display(config)
        self._comparison: Comparison | None = None
        self._used_seconds: dict[str, list[float]] = {}  # by suite: used, budget

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.session.journal.folder

    def announce(self) -> None:
        """Say what is about to be measured, and where."""
        plan = self.plan
        self.display.line(
            f"revbench: tier {plan.tier}, device {plan.device}, data {plan.data}, run folder {self.folder}"
        )
        self.display.line(summarise(self.session.environment, [self.session.device]))
        for note in (*self.session.notes, *registry().problems):
            self.display.line(note, yellow=True)

    @contextmanager
    def measurer(self, request: pytest.FixtureRequest, repeat: int) -> Iterator[Measurer]:
        """Returns the fixture ``revbench`` of one test, whose time counts to its suite's budget."""
        began = time.perf_counter()
        measurer = Measurer(request, self.session, self.display, self.plan, repeat, self.time_options)
        yield measurer
        self._marked.measured(request.node, measurer.rows)
        used = self._used_seconds.setdefault(request.path.name, [0.0, 0.0])
        used[0] += time.perf_counter() - began
        used[1] = getattr(request.module, "BUDGET_SECONDS", 0.0) * self.repeats

    def finish(self, exit_status: int) -> int:
        """End the worker server, also after Ctrl-C, and compare with the baseline.

        Returns:
            The exit status; a session that measured nothing is a mistake, one that got worse has failed.
        """
        self.session.server.close()
        nothing = exit_status == pytest.ExitCode.OK and not self.session.journal.run.rows
        if exit_status == pytest.ExitCode.NO_TESTS_COLLECTED or nothing:
            self.display.line("ERROR: no case was selected; look at -k, -m and the paths given", red=True)
            return pytest.ExitCode.USAGE_ERROR
        if self._baseline is None or exit_status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return exit_status
        try:
            thresholds = [*self._of_project, *self._marked.thresholds(), *self._given]
            found = self._comparison = compare_runs(self._baseline, self.session.journal.run, thresholds)
        except UserError as error:
            self.display.line(f"ERROR: {error}", red=True)
            return pytest.ExitCode.USAGE_ERROR
        if (problem := write_gate(found, self.folder)) is not None:
            self.display.line(problem, yellow=True)
        if found.blind:
            self.display.line(f"ERROR: {found.why_blind()}", red=True)
            return pytest.ExitCode.USAGE_ERROR
        return pytest.ExitCode.TESTS_FAILED if found.failed else exit_status

    def check(self, items: Sequence[pytest.Item]) -> None:
        """See before anything is measured that tests' thresholds and the grouping can be, and that the gate has something to
        compare, where that can be known: every test names its case, and the baseline has none of them.

        Raises:
            UserError: that is not so.
        """
        self._marked.read(items)
        check_grouping(self._group_by, items)
        if self._baseline is None:
            return
        cases = [case_of(item) for item in items if measures(item)]
        known = {row.case.replace(device="cpu") for row in self._baseline.rows}
        if not cases or any(case is None or case.replace(device="cpu") in known for case in cases):
            return
        raise UserError(
            f"the baseline {self._baseline.folder} has none of the {len(cases)} cases that were selected, so the gate would"
            " compare nothing; select those of the baseline, or measure a baseline of these"
        )

    def summarise(self, terminal: Any) -> None:
        """Write the report, and say what it took, what failed, what got worse, and where the report is."""
        for suite, (used, budget) in self._used_seconds.items():
            of = f" of a budget of {budget:.0f} s" if budget else ""
            terminal.write_line(f"{suite:<22} {used:>6.1f} s{of}", yellow=bool(budget) and used > budget)
        rows = standing(self.session.journal.run.rows)
        _say_what_failed(terminal, rows)
        if not rows:
            return
        _say_headlines(terminal, self.folder)
        if self._comparison is not None:
            _say_what_changed(terminal, self._comparison)
        try:
            written = write_report([self.folder], self.folder, comparison=self._comparison)
        except (UserError, ImportError) as error:
            again = f"; render it elsewhere with: revbench report {self.folder}"
            said = f"no report: {error}{again if isinstance(error, ImportError) else ''}"
            terminal.write_line(printable(said), red=True)
            return
        for note in written.notes:
            terminal.write_line(printable(note), yellow=True)
        beside = ", ".join(path.name for path in written.paths if path.suffix != ".html")
        terminal.write_line(printable(f"beside the report: {beside}"))

    def close(self) -> None:
        """Let go of the worker server and the run folder, and name the report as the last word."""
        self._open.close()
        report = self.folder / "report.html"
        if report.is_file():
            say(f"report: {report}")


def _say_headlines(terminal: Any, folder: Path) -> None:
    """Say of each network what reconstruction saves and costs, and what that advises."""
    run = read_run(folder)
    for ids in environments_alike(run):
        evidence = Evidence(run, *ids)
        found = headlines(evidence)
        lines = lines_of(found)
        if lines:
            lines.append(f"measured on {evidence.machine}"[:WIDTH])
        if said := advice(evidence, largest_of(found)):
            lines += textwrap.wrap(said, WIDTH)
        for line in lines:
            terminal.write_line(printable(line))


def _say_what_failed(terminal: Any, rows: Sequence[Row]) -> None:
    bad = [row for row in rows if not row.ok]
    if bad:
        statuses = ", ".join(f"{sum(r.status == s for r in bad)} {s}" for s in sorted({r.status for r in bad}))
        terminal.write_line(f"{len(bad)} of {len(rows)} rows have no values: {statuses}", red=True)


def _say_what_changed(terminal: Any, comparison: Comparison) -> None:
    for line in comparison.lines():
        failed = line.startswith("WORSE") or (line.startswith("gate ") and comparison.failed)
        terminal.write_line(printable(line), red=failed, yellow=line.startswith("CAN'T TELL"))
