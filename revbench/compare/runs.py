"""The cases of two runs, matched and compared; the raw angle, the flips and the time are shown and not gated.

One flip more or less changes an angle a thousandfold, and a time says nothing without launches to compare.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from revbench.case import Case
from revbench.compare.findings import Comparison, Finding
from revbench.compare.gate import CaseRows, gate
from revbench.errors import UserError
from revbench.results.journal import Run, read_run
from revbench.results.schema import Row
from revbench.titles import circumstances, strategy_of, title_of

SHOWN = ("angle_degrees", "flips")


def compare_folders(baseline: Path, current: Path) -> Comparison:
    """Read two run folders and compare them.

    Raises:
        UserError: a folder that is no run, or runs that have no case of drift in common.
    """
    return compare_runs(read_run(baseline), read_run(current))


def compare_runs(baseline: Run, current: Run) -> Comparison:
    """Compare the drift of all cases that both runs have measured.

    Raises:
        UserError: they have none in common.
    """
    before, now = _by_case(baseline, "drift"), _by_case(current, "drift")
    same = _hardware(baseline, before) == _hardware(current, now)
    if not same:
        before, now = _without_device(before), _without_device(now)
    findings: list[Finding] = []
    for case in now:
        if case in before:
            findings += _compare_case(case, CaseRows(baseline, before[case]), CaseRows(current, now[case]), same)
    if not findings:
        raise UserError(
            f"{current.folder} and the baseline {baseline.folder} have no case of drift in common, so nothing can be gated;"
            " measure the baseline's cases (suites/bench_drift.py)"
        )
    findings += _times(baseline, current) if same else []
    order = ("worse", "unclear", "holds", "shown")
    findings.sort(key=lambda finding: (order.index(finding.outcome), -(finding.factor or 0)))
    unmatched = [case.id for case in before if case not in now]
    return Comparison(baseline.folder.resolve().name, same, findings, unmatched)


def _compare_case(case: Case, before: CaseRows, now: CaseRows, same_hardware: bool) -> Iterator[Finding]:
    title = f"{title_of(case.model)} {strategy_of(case)} ({circumstances(case)})"
    if before.ok and not now.ok:
        words = f"was ok, now {now.rows[0].status}: {now.rows[0].message}"
        yield Finding(case.id, title, "status", "worse", words=words)
        return
    if not before.ok:
        return
    for figure, said in (
        ("trace", "a step leaves {} otherwise than stored does"),
        ("coarse_casts", "it computes in {}"),
    ):
        found = [row.metrics[figure] for row in now.ok if row.metrics.get(figure)]
        if found and not any(row.metrics.get(figure) for row in before.ok):
            yield Finding(case.id, title, figure, "worse", words=said.format(found[0]))
    gated = ["activation_error_epsilons", "smooth_amplification"]
    if same_hardware or not now.samples("smooth_amplification"):
        gated.append("smooth_error_epsilons")
    for figure in gated:
        old, new = before.samples(figure), now.samples(figure)
        if old and new:
            yield gate(case.id, title, figure, before, now)
        elif old:
            yield Finding(case.id, title, figure, "worse", statistics.median(old), words="it can't be had any more")
    for figure in SHOWN:
        old, new = before.samples(figure), now.samples(figure)
        if old and new:
            a, b = statistics.median(old), statistics.median(new)
            yield Finding(case.id, title, figure, "shown", a, b, b / a if a > 0 else None)


def _times(baseline: Run, current: Run) -> Iterator[Finding]:
    before, now = _by_case(baseline, "time"), _by_case(current, "time")
    for case in now:
        old, new = (
            [value for row in rows.get(case, ()) if row.ok and (value := row.number("step_seconds")) is not None]
            for rows in (before, now)
        )
        if old and new:
            a, b = statistics.median(old), statistics.median(new)
            title = f"{title_of(case.model)} {strategy_of(case)} ({circumstances(case)})"
            yield Finding(case.id, title, "step_seconds", "shown", a, b, b / a if a > 0 else None)


def _by_case(run: Run, probe: str) -> dict[Case, list[Row]]:
    found: dict[Case, list[Row]] = {}
    for row in run.rows:
        if row.probe == probe:
            found.setdefault(row.case.replace(device=row.case.device.partition(":")[0]), []).append(row)
    return found


def _without_device(rows: Mapping[Case, list[Row]]) -> dict[Case, list[Row]]:
    found: dict[Case, list[Row]] = {}
    for case, these in rows.items():
        found.setdefault(case.replace(device="cpu"), []).extend(these)
    return found


def _hardware(run: Run, rows: Mapping[Case, Sequence[Row]]) -> set[tuple[str, ...]]:
    """The processors that the rows were measured on: accelerators if they were used, else the CPU."""
    found = set()
    for case, these in rows.items():
        for row in these:
            environment = run.environments.get(row.environment_id)
            if environment is None:
                raise UserError(
                    f"{run.folder}: a row names an environment {row.environment_id!r} that the file does not describe"
                )
            used = [str(accelerator["name"]) for accelerator in environment["accelerators"]]
            found.add(tuple(used) if case.device != "cpu" else (str(environment["cpu"]["model"]),))
    return found
