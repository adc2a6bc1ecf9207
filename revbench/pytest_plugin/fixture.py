"""The fixture ``revbench``, by which a test measures a case."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.probes.declared import TIME
from revbench.pytest_plugin.collection import asked_params, compared_with
from revbench.pytest_plugin.display import Display
from revbench.results.benchmark_json import benchmark_name
from revbench.results.schema import Row
from revbench.runner.client import DEFAULT_TIMEOUT_SECONDS
from revbench.runner.registry import probe_of
from revbench.runner.session import Session
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


@contextmanager
def _mistakes_fail() -> Iterator[None]:
    """Inside, a mistake of the user fails the test with its one line."""
    problem: str | None = None
    try:
        yield
    except UserError as error:
        problem = str(error)
    if problem is not None:  # outside of the handler, so that no traceback is chained to it
        pytest.fail(plain(problem), pytrace=False)


def _properties(row: Row) -> Iterator[tuple[str, object]]:
    """Returns what ``--junit-xml`` says of a row, under the names that `revbench export` gives the same numbers."""
    said = f"{row.case.id}: {row.probe}"
    launch = f", launch {row.repeat}" if row.repeat > 1 else ""
    yield f"{said} status{launch}", row.status
    for name, value in row.metrics.items():
        if row.number(name) is not None:
            yield f"{said} {name}{launch}", value


class Measurer:
    """Measures cases for one test; what the fixture ``revbench`` gives.

    Attributes:
        plan: tier, device and data of this invocation.
        repeat: number of this launch, from 1.
        rows: what was measured so far.
    """

    def __init__(
        self,
        request: pytest.FixtureRequest,
        session: Session,
        display: Display,
        plan: Plan,
        repeat: int,
        time_options: Mapping[str, Any],
    ) -> None:
        self._request = request
        self._session = session
        self._display = display
        self._time_options = time_options
        self._in_table = False
        self._measures_itself = "benchmark" in request.fixturenames
        self._shown = False
        self.plan = plan
        self.repeat = repeat
        self.rows: list[Row] = []

    def measure(
        self, case: Case, probe: str, *, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS, **options: Any
    ) -> Row:
        """Measure one probe of a case in a fresh process, or take the row from the resumed run.

        A probe that takes several cases (``time``) measures with this case those that it is compared with and that the same
        test is going to measure: all of a parametrised test that differ in strategy only, a ResNet with its RevNet.

        Args:
            case: what to measure.
            probe: the name of one.
            timeout_seconds: after this the row's status is ``timeout``.
            options: the probe's settings; pytest-benchmark's options on the command line win.

        Returns:
            The row. One whose status is not ``ok`` is shown and counted, and fails no test.
        """
        replayed = self._session.replayed
        with _mistakes_fail():
            options = self._options(probe, options)
            self._measure_what_is_compared(case, probe, options, timeout_seconds)
            with self._bar(case, probe) as progress:
                row = self._session.measure(
                    case, probe, repeat=self.repeat, options=options, timeout_seconds=timeout_seconds, progress=progress
                )
        self._show([row], replayed=self._session.replayed > replayed)
        if probe == TIME.name and row.ok and not self._in_table:
            self._show_in_table(row)
        return row

    def _measure_what_is_compared(
        self, case: Case, probe: str, options: Mapping[str, Any], timeout_seconds: float
    ) -> None:
        """Measure a case together with those it is compared with; its row is there then, and so are theirs, for their tests."""
        group = compared_with(self._request.node, case) if probe_of(probe).takes_group else [case]
        if len(group) == 1:
            return
        with contextlib.suppress(UserError):  # a mistake in another case is told by the test of that one
            self._session.measure_together(
                group, probe, repeat=self.repeat, options=options, timeout_seconds=timeout_seconds * len(group)
            )

    def measure_together(
        self, cases: Sequence[Case], probe: str, *, timeout_seconds: float = 3600.0, **options: Any
    ) -> list[Row]:
        """Measure several cases in one fresh process.

        Args:
            cases: what to measure; they must agree in device, threads, allocator and the like.
            probe: the name of one that takes several.
            timeout_seconds: after this all their rows have the status ``timeout``.
            options: the probe's settings; pytest-benchmark's options on the command line win.

        Returns:
            A row for each case.
        """
        replayed = self._session.replayed
        with _mistakes_fail():
            options = self._options(probe, options)
            rows = self._session.measure_together(
                cases, probe, repeat=self.repeat, options=options, timeout_seconds=timeout_seconds
            )
        self._show(rows, replayed=self._session.replayed > replayed)
        return rows

    def _options(self, probe: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the options of this launch, which draws other weights and batches than the launches before it."""
        own = self._time_options if probe == TIME.name else {}
        return {**probe_of(probe).launch_options(self.repeat), **given, **own}

    def _bar(self, case: Case, probe: str) -> AbstractContextManager[Callable[[Mapping[str, Any]], None]]:
        """Returns what takes the messages of a probe: a bar for one that takes long."""
        return self._display.bar(case) if probe_of(probe).resumable else nullcontext(_ignore)

    def _show(self, rows: Sequence[Row], *, replayed: bool) -> None:
        self._display.rows(rows, first=not self._shown, replayed=replayed)
        self._shown = True
        self.rows += rows
        for row in rows:
            self._request.node.user_properties.extend(_properties(row))

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
        asked = dict.fromkeys(asked_params(self._request.config.option.benchmark_group_by))
        benchmark.params = {**asked, **(benchmark.params or {})}  # of what this test has not, the group None
        benchmark.extra_info.update(environment_id=row.environment_id, repeat=row.repeat)
        samples = list(row.samples[TIME["step_seconds"].name])
        left = iter(samples)
        benchmark.pedantic(lambda: clock.advance(next(left)), setup=clock.reset, rounds=len(samples), iterations=1)
