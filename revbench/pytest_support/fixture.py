"""The fixture ``revbench``, by which a test measures a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.pytest_support.display import Display
from revbench.pytest_support.options import Invocation
from revbench.results.benchmark_json import benchmark_name
from revbench.results.schema import Row
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS
from revbench.terminal import plain
from revbench.tiers import Plan


def _ignore(_: Mapping[str, Any]) -> None:
    """Take a message of a probe that is over soon."""


class ReplayClock:
    """A timer for pytest-benchmark that shows the seconds which a worker measured."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self._now

    def reset(self) -> None:
        """Back to 0, so that a round's seconds come out exactly."""
        self._now = 0.0

    def advance(self, seconds: float) -> None:
        """Let this time have passed."""
        self._now += seconds


class Measurer:
    """Measures cases for one test; what the fixture ``revbench`` gives.

    Attributes:
        plan: tier, device and data of this invocation.
        repeat: number of this launch, from 1.
    """

    def __init__(self, request: pytest.FixtureRequest, invocation: Invocation, display: Display, repeat: int) -> None:
        self._request = request
        self._invocation = invocation
        self._display = display
        self._in_table = False
        self._measures_itself = "benchmark" in request.fixturenames
        self._shown = False
        self.plan: Plan = invocation.plan
        self.repeat = repeat

    def measure(
        self, case: Case, probe: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS, **options: Any
    ) -> Row:
        """Measure one probe of a case in a fresh process, or take the row from the resumed run.

        Args:
            case: what to measure.
            probe: ``time``, ``memory``, ``flops``, ``drift`` or ``training``.
            timeout_seconds: after this the row's status is ``timeout``.
            options: the probe's settings; pytest-benchmark's options on the command line win.

        Returns:
            The row. One whose status is not ``ok`` is shown and counted, and fails no test.
        """
        session = self._invocation.session
        if probe == "time":
            options |= self._invocation.time_options
        replayed = session.replayed
        problem: str | None = None
        try:
            with self._display.bar(case) if probe == "training" else nullcontext(_ignore) as progress:
                row = session.measure(
                    case, probe, repeat=self.repeat, options=options, timeout_seconds=timeout_seconds, progress=progress
                )
        except UserError as error:
            problem = str(error)
        if problem is not None:
            pytest.fail(plain(problem), pytrace=False)
        self._show([row], replayed=session.replayed > replayed)
        if probe == "time" and row.ok and not self._in_table:
            self._show_in_table(row)
        return row

    def measure_together(
        self, cases: Sequence[Case], probe: str, *, timeout_seconds: float = 3600.0, **options: Any
    ) -> list[Row]:
        """Measure several cases in one fresh process.

        Args:
            cases: what to measure; they must agree in device, threads, allocator and the like.
            probe: ``time_interleaved`` or ``fit``.
            timeout_seconds: after this all their rows have the status ``timeout``.
            options: the probe's settings.

        Returns:
            A row for each case.
        """
        session = self._invocation.session
        replayed = session.replayed
        problem: str | None = None
        try:
            rows = session.measure_together(
                cases, probe, repeat=self.repeat, options=options, timeout_seconds=timeout_seconds
            )
        except UserError as error:
            problem = str(error)
        if problem is not None:
            pytest.fail(plain(problem), pytrace=False)
        self._show(rows, replayed=session.replayed > replayed)
        return rows

    def _show(self, rows: Sequence[Row], *, replayed: bool) -> None:
        self._display.rows(rows, first=not self._shown, replayed=replayed)
        self._shown = True

    def _show_in_table(self, row: Row) -> None:
        """Replay a row's samples through pytest-benchmark, which keeps the statistics shown in the terminal."""
        self._in_table = True
        if self._measures_itself:  # pytest-benchmark's own entry of this test is the user's
            return
        clock = ReplayClock()
        given = self._request.node.get_closest_marker("benchmark")
        settings = {"group": row.case.model, **(given.kwargs if given is not None else {}), "timer": clock}
        self._request.node.add_marker(pytest.mark.benchmark(**settings), append=False)
        benchmark = self._request.getfixturevalue("benchmark")
        benchmark.name = benchmark_name(row.case.id, row.repeat)
        benchmark.fullname = f"{row.probe}::{benchmark.name}"
        benchmark.extra_info.update(environment_id=row.environment_id, repeat=row.repeat)
        samples = list(row.samples["step_seconds"])
        left = iter(samples)
        benchmark.pedantic(lambda: clock.advance(next(left)), setup=clock.reset, rounds=len(samples), iterations=1)
