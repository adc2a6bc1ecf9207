"""Runs for tests of reports, and what is looked for in a report."""

from __future__ import annotations

import html.parser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.report.build import build_report
from revbench.report.document import Figure, Report, Table
from revbench.results.schema import Row
from tests.results.rows import Columns, make_row, write_run

EVIL = '<script>alert(1)</script> | `x` #panic() $ \\ "q" *b* _i_ ]'
BASE = Case(model="revnet-38", batch_size=16)


def timed(seconds: float) -> dict[str, Any]:
    return {
        "step_seconds": seconds, "forward_seconds": seconds / 3, "backward_seconds": seconds / 2,
        "optimizer_seconds": seconds / 6, "rounds": 3, "minor_faults_per_step": 2.0,
    }  # fmt: skip


def timed_row(case: Case, seconds: float, *, repeat: int = 1, **changes: Any) -> Row:
    """A launch whose cases took turns, each of two steps, while nothing disturbed them."""
    metrics = {**timed(seconds), "rounds": 12, "turns": 6, "steps_per_turn": 2, "cases_in_turn": 3, "session": "a1"}
    return make_row(case=case, repeat=repeat, metrics=metrics, samples={"step_seconds": [seconds] * 12}, **changes)


def memory(activations: int) -> dict[str, Any]:
    phases = {f"{p}_peak_bytes": 1000 + activations for p in ("forward", "backward", "optimizer")}
    return {
        **phases,
        "peak_bytes": 1000 + activations,
        "steady_bytes": 1000,
        "activation_peak_bytes": activations,
        "rss_peak_bytes": 9000,
    }


def make_run(folder: Path) -> Path:
    """A run of a pair with every probe that the report has a section for, and a row by a stranger."""
    stored, ours = BASE, BASE.replace(strategy="reconstructed")
    resnet = BASE.replace(model="resnet-32")
    evil = Case(model=f"{EVIL}:{EVIL}", batch_size=1)
    return write_run(
        folder,
        *_times(resnet, stored, ours),
        *_memory_and_operations(resnet, stored, ours),
        *_drift(stored, ours),
        *_trainings(resnet, stored, ours, stored.replace(ulp=1)),
        *(
            make_row(case=Case(model=name, batch_size=1), probe="parameters", metrics={"parameters": count}, samples={})
            for name, count in (("revnet-38", 464_890), ("revnet-104", 45_428_072))
        ),
        make_row(case=evil, status="crashed", metrics={}, samples={}, message=EVIL),
    )


def _times(*cases: Case) -> Iterator[Row]:
    for repeat, factor in ((1, 1.0), (2, 1.2), (3, 0.9)):
        for case, seconds in zip(cases, (0.3, 0.4, 0.6), strict=True):
            yield timed_row(case, seconds * factor, repeat=repeat)


def _memory_and_operations(*cases: Case) -> Iterator[Row | tuple[Row, Columns]]:
    columns = {"operation": [1, 2, 3], "live_bytes": [5, 9, 3], "phase": ["forward", "backward", "optimizer"]}
    for case, activations, flops in zip(cases, (4 << 20, 8 << 20, 2 << 20), (3e9, 3e9, 4e9), strict=True):
        yield make_row(case=case, probe="memory", metrics=memory(activations), samples={}), columns
        counted = {"step_flops": flops, "forward_flops": 1e9, "backward_flops": flops - 1e9}
        yield make_row(case=case, probe="flops", metrics=counted, samples={})


def _drift(*cases: Case) -> Iterator[Row]:
    for case, angle in zip(cases, (0.1, 0.2), strict=True):
        found = {"angle_degrees": [angle] * 5, "relative_error": [angle / 60] * 5}
        metrics = {
            "angle_degrees": angle, "relative_error": angle / 60, "draws": 5, "worst_tensor_angle_degrees": 1.5,
            "worst_tensor": "head.4.bias",
        }  # fmt: skip
        yield make_row(case=case, probe="drift", metrics=metrics, samples=found)


def _trainings(*cases: Case) -> Iterator[tuple[Row, Columns]]:
    columns: Columns = {
        "step": [1, 2, 3, 4], "loss": [2.0, 1.5, 1.2, 1.0], "error": [0.9, 0.8, 0.7, 0.6],
        "validation_error": [None, 0.8, None, 0.55], "validation_loss": [None, 1.6, None, 1.1], "learning_rate": [0.1] * 4,
        "step_seconds": [0.1] * 4,
    }  # fmt: skip
    ended = {
        "train_loss": 1.0, "train_error": 0.6, "validation_error": 0.55, "validation_loss": 1.1, "step_seconds": 0.1,
        "train_images": 1438, "train_images_available": 1438, "validation_images": 359,
    }  # fmt: skip
    for case in cases:
        trained = case.replace(training_steps=4, data="digits")
        yield make_row(case=trained, probe="training", metrics=ended, samples={}), columns


def report_of(folder: Path, *rows: Row | tuple[Row, Columns]) -> Report:
    """The report of a run with these rows, each alone or with the columns of its series."""
    return build_report([write_run(folder, *rows)])


def tables(report: Report) -> dict[str, Table]:
    return {b.title: b for s in report.sections for b in s.blocks if isinstance(b, Table)}


def figures(report: Report) -> dict[str, Figure]:
    return {b.title: b for s in report.sections for b in s.blocks if isinstance(b, Figure)}


class Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]
