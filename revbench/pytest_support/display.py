"""What a person sees while the suites run: a line a case with its figures, a bar while something trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from revbench.case import Case
from revbench.results.schema import Row
from revbench.terminal import plain, printable, say
from revbench.units import human_bytes, human_degrees, human_flops, human_seconds


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
        """One line of its own."""
        with self._uncaptured():
            if self._terminal is None:
                say(text)
                return
            self._terminal.ensure_newline()
            self._terminal.write_line(printable(text), **markup)

    def rows(self, rows: Sequence[Row], *, first: bool, replayed: bool) -> None:
        """The lines of one measurement: what was measured, and what came out.

        Args:
            rows: of one measurement.
            first: it is the first of its test, so one more test of all is being done.
            replayed: the rows were there before.
        """
        self.done += first
        width = len(str(self.total))
        count = f"[{self.done:>{width}}/{self.total}]" if first else ""
        for row in rows:
            text = f"{count:>{2 * width + 3}} {row.probe:<8} {describe(row.case):<58} {figures(row)}"
            text += "  (measured before)" if replayed else f"  {row.elapsed_seconds:.1f} s"
            self.line(text, red=not row.ok)
            count = ""

    @contextmanager
    def bar(self, case: Case) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A progress bar with the time left, where the terminal is one; else nothing."""
        if not getattr(self._terminal, "isatty", False):
            yield lambda _: None
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )  # fmt: skip
        console = Console(file=sys.__stdout__, force_terminal=True)
        with self._uncaptured(), Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
            task = progress.add_task(escape(plain(describe(case))), total=None, figures="")

            def show(message: Mapping[str, Any]) -> None:
                found = f"loss {message['loss']:.3f}  error {message['error']:.0%}" if "loss" in message else ""
                progress.update(task, completed=message["done"], total=message["of"], figures=found)

            yield show

    @contextmanager
    def _uncaptured(self) -> Iterator[None]:
        capture = self._plugins.getplugin("capturemanager")
        if capture is None:
            yield
            return
        with capture.global_and_fixture_disabled():
            yield


def describe(case: Case) -> str:
    """A case in a few words: model, strategy, batch, and what else is unusual about it."""
    if case == Case(model=case.model, batch_size=1, num_classes=case.num_classes):
        return case.model if case.num_classes is None else f"{case.model} {case.num_classes} classes"
    words = [case.model.removeprefix("revbench.peers:"), case.strategy]
    if case.nonreversible == "recomputed":
        words[-1] += "+recomputed"
    if case.kept_half_blocks:
        words[-1] += f"+{case.kept_half_blocks} kept"
    if case.certify:
        words[-1] += "+certified"
    if case.compile:
        words[-1] += "+compiled"
    words.append(case.dtype)
    words.append(f"batch {case.batch_size}")
    if case.memory_limit_bytes:
        words.append(f"in {human_bytes(case.memory_limit_bytes)}")
    if case.training_steps:
        words.append(case.data)
    if case.ulp:
        words.append(f"null {case.ulp}")
    return " ".join(words)


def figures(row: Row) -> str:
    """The figures of a row for a person, or why there are none."""
    if not row.ok:
        return f"{row.status}: {row.message}"
    try:
        return _figures(row)
    except (KeyError, TypeError, ValueError):  # a stranger's row, in which something is missing or a word
        return "; ".join(f"{k}: {v}" for k, v in row.metrics.items() if k.endswith("_reason")) or "no figures"


def _figures(row: Row) -> str:
    m: Mapping[str, Any] = row.metrics
    if row.probe in ("time", "time_interleaved"):
        phases = ", ".join(f"{p} {human_seconds(m[f'{p}_seconds'])}" for p in ("forward", "backward"))
        return f"{human_seconds(m['step_seconds'])} a step ({phases}; {m['rounds']} steps)"
    if row.probe == "memory" and m["activation_peak_bytes"] is None:
        return f"{human_bytes(m['allocated_activation_peak_bytes'])} above the steady state, by the allocator"
    if row.probe == "memory":
        return (
            f"{human_bytes(m['peak_bytes'])} at peak, {human_bytes(m['activation_peak_bytes'])} above the steady state"
        )
    if row.probe == "flops":
        missing = f" at least: no formula for {m['uncounted_operators']}" if m.get("uncounted_operators") else ""
        return f"{human_flops(m['step_flops'])} a step{missing}"
    if row.probe == "parameters":
        return f"{m['parameters']:,} parameters"
    if row.probe == "leak":
        return f"{human_bytes(m['leak_bytes_per_step'])} more at the end of each step ({m['steps']} steps)"
    if row.probe == "energy":
        return f"{m['joules_per_step']:.2f} J a step, {m['watts']:.0f} W"
    if row.probe == "nvml":
        return (
            f"{human_bytes(m['nvml_process_peak_bytes'])} of the process; sampling costs {m['sampler_slowdown']:+.1%}"
        )
    if row.probe == "memory_history":
        return f"{human_bytes(m['allocated_peak_bytes'])} allocated, {human_bytes(m['reserved_peak_bytes'])} reserved at peak"
    if row.probe == "fit":
        return f"{m['largest_batch_size']:,} items fit, {human_bytes(m['predicted_peak_bytes'])} predicted"
    if row.probe == "drift":
        return f"{human_degrees(m['angle_degrees'])} to the float64 gradient ({m['draws']} draws); {m['verdict_words']}"
    if row.probe == "lipschitz":
        constants = ", ".join(f"{name} {m[f'lipschitz_{name.lower()}']:.1f}" for name in ("F", "G", "inverse"))
        return f"Lipschitz constants of {constants} (medians of {m['blocks']} blocks)"
    if row.probe == "determinism":
        return (
            f"{m['runs']} steps {'with equal bits' if m['identical'] else 'that part at the ' + m['first_difference']}"
        )
    return (
        f"validation error {m['validation_error']:.1%}, loss {m['validation_loss']:.3f};"
        f" {human_seconds(m['step_seconds'])} a step"
    )
