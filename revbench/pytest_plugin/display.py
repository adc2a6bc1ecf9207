"""What a person sees while the suites run: a line a case with what was measured, a bar while something trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from revbench.case import Case
from revbench.case.labels import describe
from revbench.results.schema import Row
from revbench.runner.session import result_of
from revbench.terminal import plain, printable, say


class Display:
    """Writes to pytest's terminal, past its capture.

    Args:
        config: pytest's.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self.total = 0
        self.done = 0

    @property
    def _terminal(self) -> Any:
        return self._plugins.getplugin("terminalreporter")  # asked late: it is registered after us

    def line(self, text: str, **markup: bool) -> None:
        """Print one line of its own."""
        with self._uncaptured():
            if self._terminal is None:
                say(text)
                return
            self._terminal.ensure_newline()
            self._terminal.write_line(printable(text), **markup)

    def rows(self, rows: Sequence[Row], *, first: bool, replayed: bool) -> None:
        """Print the lines of one measurement: what was measured, and what came out.

        Args:
            rows: of one measurement.
            first: it is the first of its test, so one more test of all is being done.
            replayed: the rows were there before.
        """
        self.done += first
        width = len(str(self.total))
        count = f"[{self.done:>{width}}/{self.total}]" if first else ""
        for row in rows:
            text = f"{count:>{2 * width + 3}} {row.probe:<8} {describe(row.case):<58} {result_of(row)}"
            text += "  (measured before)" if replayed else f"  {row.elapsed_seconds:.1f} s"
            self.line(text, red=not row.ok)
            count = ""

    @contextmanager
    def bar(self, case: Case) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Shows a progress bar with the time left, where the terminal is one; else nothing."""
        if not getattr(self._terminal, "isatty", False):
            yield lambda _: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[found]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        console = Console(file=sys.__stdout__, force_terminal=True)
        with self._uncaptured(), Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
            task = progress.add_task(escape(plain(describe(case))), total=None, found="")

            def show(message: Mapping[str, Any]) -> None:
                found = "  ".join(
                    f"{name} {value:{form}}"
                    for name, form in (("loss", ".3f"), ("error", ".0%"))
                    if isinstance(value := message.get(name), (int, float))
                )
                progress.update(task, completed=message.get("done"), total=message.get("of"), found=found)

            yield show

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        capture = self._plugins.getplugin("capturemanager")
        if capture is None:
            yield
            return
        with capture.global_and_fixture_disabled():
            yield
