"""What a person sees of several trainings: all members side by side, or a line now and then where nobody looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from revbench.case import Case
from revbench.case.labels import member_of
from revbench.results.schema import Row
from revbench.terminal import plain
from revbench.units import human_bytes, human_degrees, human_seconds

COLUMNS = ("", "done", "step", "loss", "error", "a step", "memory", "angle", "left", "validation")
DISPENSABLE = ("done", "angle", "memory", "a step", "validation")
_UNLIMITED = 10_000  # wider than any table
LINES = 10  # of each training, where the output is no terminal


class Board:
    """The members of an invocation and where each stands.

    Args:
        cases: in the order in which they are trained.
        console: where to draw.
    """

    def __init__(self, cases: Sequence[Case], console: Console) -> None:
        self._cases = cases
        self._console = console
        self._live: Live | None = None
        self._latest: dict[Case, Mapping[str, Any]] = {}
        self._rows: dict[Case, Row] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw until the end of this context, if the console is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=4, get_renderable=self.table) as self._live:
            yield
        self._live = None

    def progress(self, case: Case) -> Callable[[Mapping[str, Any]], None]:
        """Takes the messages of one training."""

        def take(message: Mapping[str, Any]) -> None:
            angle = message.get("angle_degrees")
            if angle is None:  # it is measured now and then: the last one stays
                angle = self._latest.get(case, {}).get("angle_degrees")
            self._latest[case] = {**message, "angle_degrees": angle}
            done, of = message["done"], message["of"]
            if self._live is None and (done * LINES // of != (done - 1) * LINES // of):
                self._console.print(f"{_name(case)}: {done:,} of {of:,} steps, {_in_words(message)}")

        return take

    def ended(self, case: Case, row: Row) -> None:
        """Take note that a training is over."""
        self._rows[case] = row

    def table(self) -> Table:
        """Returns all members side by side; what a narrow console has no room for is left out, the least important first."""
        names = list(COLUMNS)
        for dispensable in (*DISPENSABLE, None):
            table = Table(box=None, pad_edge=False)
            for name in names:
                table.add_column(name, justify="left" if not name else "right", no_wrap=True)
            for case in self._cases:
                cells = self._cells(case)
                table.add_row(*(cells.get(name, "") for name in names))
            wanted = self._console.measure(table, options=self._console.options.update(max_width=_UNLIMITED)).maximum
            if dispensable is None or wanted <= self._console.width:
                break
            names.remove(dispensable)
        return table

    def _cells(self, case: Case) -> dict[str, RenderableType]:
        message, row = self._latest.get(case), self._rows.get(case)
        if row is not None and not row.ok:
            return {"": _name(case), "step": row.status}
        error = row.number("validation_error") if row is not None else None
        validation = "" if error is None else f"{error:.1%}"
        if message is None:
            return {"": _name(case), "step": "waits" if row is None else "was there", "validation": validation}
        done, of, angle = message["done"], message["of"], message["angle_degrees"]
        return {
            "": _name(case), "done": ProgressBar(total=of, completed=done, width=12), "step": f"{done:,}/{of:,}",
            "loss": _number(message["loss"], ".3f"), "error": _number(message["error"], ".1%"),
            "a step": human_seconds(message["step_seconds"]), "memory": human_bytes(message["peak_bytes"]),
            "angle": human_degrees(angle) if angle is not None else "",
            "left": str(timedelta(seconds=round((of - done) * message["step_seconds"]))) if done < of else "",
            "validation": validation,
        }  # fmt: skip


def _name(case: Case) -> str:
    return escape(plain(member_of(case)))


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)


def _in_words(message: Mapping[str, Any]) -> str:
    return (
        f"loss {_number(message['loss'], '.3f')}, error {_number(message['error'], '.1%')},"
        f" {human_seconds(message['step_seconds'])} a step"
    )
