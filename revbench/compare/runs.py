"""The cases of two runs, matched and compared; the raw angle, the flips and the time are shown and not gated.

One flip more or less changes an angle a thousandfold, and a time says nothing without launches to compare.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from revbench.case import Case
from revbench.case.labels import full_title
from revbench.compare.findings import Comparison, Finding
from revbench.compare.gate import ACTIVATIONS, AMPLIFICATION, SMOOTH_ERROR, CaseRows, gate
from revbench.errors import UserError
from revbench.probes import Probe
from revbench.probes.declared import DRIFT, TIME
from revbench.results.machines import processor_of
from revbench.results.runs import Run, read_run
from revbench.results.schema import Row
from revbench.terminal import plain

SHOWN = (DRIFT["angle_degrees"], DRIFT["flips"])
_STEP = TIME["step_seconds"]
Hardware = str
Measured = dict[tuple[Case, Hardware], list[Row]]


def compare_folders(baseline: Path, current: Path) -> Comparison:
    """Read two run folders and compare them.

    Raises:
        UserError: a folder that is no run, or runs that have no case of drift in common.
    """
    return compare_runs(read_run(baseline), read_run(current))


def compare_runs(baseline: Run, current: Run) -> Comparison:
    """Compare the drift of all cases that both runs have measured.

    A case is compared with itself on like hardware if the baseline has that; else with itself on the baseline's
    hardware, whatever its device, and then only the metrics are gated that are the same on every machine.

    Raises:
        UserError: they have none in common, or a row names an environment that its file does not describe.
    """
    before, now = _measured(baseline, DRIFT), _measured(current, DRIFT)
    findings: list[Finding] = []
    matched = set()
    alike = []
    for (case, hardware), rows in now.items():
        key = _match(before, case, hardware)
        if key is not None:
            matched.add(key)
            same = key == (case, hardware)
            found = list(_compare_case(case, CaseRows(baseline, before[key]), CaseRows(current, rows), same))
            findings += found
            alike += [same] if found else []
    if not findings:
        raise UserError(
            f"{current.folder} and the baseline {baseline.folder} have no case of drift in common, so nothing can be gated;"
            " measure the baseline's cases (suites/bench_drift.py)"
        )
    if all(finding.outcome == "shown" for finding in findings):
        raise UserError(
            f"of the cases that {current.folder} and the baseline {baseline.folder} have in common none has metrics in both, so"
            f" nothing can be gated ({next((f.words for f in findings if f.words), 'only raw metrics')})"
        )
    findings += _times(baseline, current)
    order = ("worse", "unclear", "holds", "shown")
    findings.sort(key=lambda finding: (order.index(finding.outcome), -(finding.factor or 0)))
    unmatched = [case.id for case, hardware in before if (case, hardware) not in matched]
    return Comparison(baseline.folder.resolve().name, all(alike), findings, unmatched)


def _match(before: Measured, case: Case, hardware: Hardware) -> tuple[Case, Hardware] | None:
    """Returns the baseline's rows that a case is compared with: the most alike."""
    if (case, hardware) in before:
        return case, hardware
    others = [key for key in before if key[0] == case]
    others += [key for key in before if key[0].replace(device=case.device) == case]
    return next(iter(others), None)


def _compare_case(case: Case, before: CaseRows, now: CaseRows, same_hardware: bool) -> Iterator[Finding]:
    title = full_title(case)
    if not before.ok:
        return
    failed = [row for row in now.rows if not row.ok]
    if failed and all(row.ok for row in before.rows):
        words = f"was ok, now {failed[0].status} in {len(failed)} of {len(now.rows)} launches: {failed[0].message}"
        # Another machine may lack the memory or the arithmetic: that is no regression.
        yield Finding(case.id, title, "status", "worse" if same_hardware else "shown", words=plain(words)[:400])
    if not now.ok:
        return
    for name, said in (
        (DRIFT["trace"].name, "a step leaves {} otherwise than stored does"),
        (DRIFT["coarse_casts"].name, "it computes in {}"),
    ):
        found = [row.metrics[name] for row in now.ok if row.metrics.get(name)]
        if found and not any(row.metrics.get(name) for row in before.ok):
            yield Finding(case.id, title, name, "worse", words=plain(said.format(found[0]))[:400])
    gated = [ACTIVATIONS, AMPLIFICATION]
    if same_hardware or not now.samples(AMPLIFICATION):
        gated.append(SMOOTH_ERROR)
    for metric in gated:
        old, new = before.samples(metric), now.samples(metric)
        if old and new:
            yield gate(case.id, title, metric, before, now)
        elif old:
            yield Finding(
                case.id, title, metric.name, "worse", statistics.median(old), words="it can't be had any more"
            )
    for metric in SHOWN:
        old, new = before.samples(metric), now.samples(metric)
        if old and new:
            a, b = statistics.median(old), statistics.median(new)
            yield Finding(case.id, title, metric.name, "shown", a, b, b / a if a > 0 else None)


def _times(baseline: Run, current: Run) -> Iterator[Finding]:
    """Compares the times of cases that were timed on like hardware."""
    before, now = _measured(baseline, TIME), _measured(current, TIME)
    for key, rows in now.items():
        old, new = (
            [value for row in of if row.ok and (value := row.number(_STEP.name)) is not None]
            for of in (before.get(key, []), rows)
        )
        if old and new:
            a, b = statistics.median(old), statistics.median(new)
            yield Finding(key[0].id, full_title(key[0]), _STEP.name, "shown", a, b, b / a if a > 0 else None)


def _measured(run: Run, probe: Probe) -> Measured:
    """Returns the rows of a probe by case (a GPU's number aside) and the processor that it ran on."""
    found: Measured = {}
    for row in run.rows:
        if row.probe == probe.name:
            case = row.case.replace(device=row.case.device_type)
            found.setdefault((case, _hardware(run, row)), []).append(row)
    return found


def _hardware(run: Run, row: Row) -> Hardware:
    """Returns the processor that a row was measured on."""
    environment = run.environments.get(row.environment_id)
    if environment is None:
        raise UserError(
            f"{run.folder}: a row names an environment {row.environment_id!r} that the file does not describe"
        )
    return processor_of(environment, row.case.device)
