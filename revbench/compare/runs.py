"""Two runs, case by case and metric by metric: what got worse, better, stayed the same, or can't be told."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from revbench.case.labels import full_title
from revbench.compare.findings import CANT_TELL, Comparison, Finding
from revbench.compare.gate import ACTIVATIONS, AMPLIFICATION, SMOOTH_ERROR, CaseRows, gate
from revbench.compare.matching import Match, Matching, match_runs
from revbench.compare.of_thresholds import median_value, of_thresholds
from revbench.compare.ratios import launch_ratios, ratios_in_turn
from revbench.compare.thresholds import TO_STORED, Threshold, check_patterns
from revbench.compare.times import LEAST_LAUNCHES, Change, change_of, took_turns, verdicts
from revbench.errors import UserError
from revbench.probes import Metric
from revbench.probes.declared import DRIFT, FLOPS_OF_STEP, MEMORY, TIME
from revbench.results.journal import is_being_written
from revbench.results.runs import Run, read_run
from revbench.results.schema import Row
from revbench.runner.registry import registry
from revbench.terminal import plain

SHOWN = (DRIFT["angle_degrees"], DRIFT["flips"])
GATED = (MEMORY["peak_bytes"], FLOPS_OF_STEP["step_flops"])  # by themselves, of what is the same whenever it is counted
GPU_TOLERANCE = 0.005  # of those on a GPU, where a library may choose another kernel with another workspace
TIME_CHANGE = 0.02  # of a time or a ratio of times: less is no change
WORTH_TELLING = 0.05  # of them: how many launches would tell it is said where nothing can be told
_STEP = TIME["step_seconds"]


def compare_folders(baseline: Path, current: Path, thresholds: Sequence[Threshold] = ()) -> Comparison:
    """Read two run folders and compare them; see `compare_runs`.

    Raises:
        UserError: a folder that is no run, or one run twice; and what `compare_runs` raises.
    """
    if baseline.resolve() == current.resolve():
        raise UserError(f"{current} is compared with itself; give another run")
    return compare_runs(read_finished(baseline), read_finished(current), thresholds)


def read_finished(folder: Path) -> Run:
    """Read a run that can be compared: one that no process is writing to.

    Raises:
        UserError: one is; and what `revbench.results.runs.read_run` raises.
    """
    if is_being_written(folder):
        raise UserError(f"a process is still writing to {folder}, so it can't be compared; wait for it to end")
    return read_run(folder)


def compare_runs(baseline: Run, current: Run, thresholds: Sequence[Threshold] = ()) -> Comparison:
    """Compare all cases that both runs have measured.

    Gated are, by themselves, statuses, peak live bytes, floating-point operations, the numerics of `revbench.compare.gate`, and
    the ratio of a strategy's time to stored's where there are launches enough; of unlike processors only the numerics that are
    the same on every machine. Thresholds gate other metrics, too, and set how much may change.

    Args:
        baseline, current: the runs.
        thresholds: of the gate.

    Raises:
        UserError: they have no case in common, a threshold that is for no case, or a row names an environment that its file does
            not describe.
    """
    matching = match_runs(baseline, current)
    if not matching.matches:
        raise UserError(
            f"{current.folder} and the baseline {baseline.folder} have no case in common, so nothing can be compared; measure"
            f" what the baseline has, as {_some(matching.missing)}"
        )
    _check_patterns(thresholds, matching)
    findings: list[Finding] = []
    for match in matching.matches:
        findings += _statuses(match)
        if match.probe == DRIFT.name:
            findings += _numerics(match, baseline, current)
        findings += _values(match, thresholds)
    findings += _times(matching, thresholds)
    findings += of_thresholds(matching, thresholds, findings)
    unlike = {name: values for match in matching.matches for name, values in match.unlike.items()}
    same = all(match.same_processor for match in matching.matches)
    return Comparison(
        baseline.folder.resolve().name, current.folder.resolve().name, same, unlike, _sorted(findings),
        [f"{probe} of {case}" for probe, case in matching.missing],
        [f"{match.probe} of {match.case.id}" for match in matching.new],
    )  # fmt: skip


def _check_patterns(thresholds: Sequence[Threshold], matching: Matching) -> None:
    """See that each threshold is for something; a limit holds for what is new, too."""
    both = [(match.probe, match.case.id) for match in matching.matches]
    new = [(match.probe, match.case.id) for match in matching.new]
    check_patterns([one for one in thresholds if one.limit is None], both, "what both runs have measured")
    check_patterns([one for one in thresholds if one.limit is not None], both + new, "the run")


def _some(cases: Sequence[tuple[str, str]]) -> str:
    shown = [f"{probe} of {case}" for probe, case in cases[:3]]
    return ", ".join(shown) + (f" and {len(cases) - 3} more" if len(cases) > 3 else "")


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    """Returns what is gated first, what got worse before all, by how much."""
    order = ("worse", CANT_TELL, "better", "same")
    statuses = ("status",)
    return sorted(
        findings,
        key=lambda f: (
            not f.gated, order.index(f.outcome), f.metric not in statuses, -abs((f.factor or 1.0) - 1.0)
        ),
    )  # fmt: skip


def _statuses(match: Match) -> Iterator[Finding]:
    """Tells what could be measured and can't be any more; another machine may lack the memory or the arithmetic."""
    title = full_title(match.case)
    failed = [row for row in match.now if not row.ok]
    if failed and all(row.ok for row in match.before):
        said = f"was ok, now {failed[0].status} in {len(failed)} of {len(match.now)} launches: {failed[0].message}"
        yield Finding(
            match.case.id, title, match.probe, "status", "worse", match.same_processor, words=plain(said)[:400]
        )
    elif not failed and all(not row.ok for row in match.before):
        said = f"was {match.before[0].status}, now ok"
        yield Finding(match.case.id, title, match.probe, "status", "better", match.same_processor, words=said)


def _numerics(match: Match, baseline: Run, current: Run) -> Iterator[Finding]:
    case, title = match.case, full_title(match.case)
    before, now = CaseRows(baseline, match.before), CaseRows(current, match.now)
    if not before.ok or not now.ok:
        return
    for name, said in (
        (DRIFT["trace"].name, "a step leaves {} otherwise than stored does"),
        (DRIFT["coarse_casts"].name, "it computes in {}"),
    ):
        found = [row.metrics[name] for row in now.ok if row.metrics.get(name)]
        if found and not any(row.metrics.get(name) for row in before.ok):
            yield Finding(case.id, title, DRIFT.name, name, "worse", True, words=plain(said.format(found[0]))[:400])
    gated = [ACTIVATIONS, AMPLIFICATION]
    if match.same_processor or not now.samples(AMPLIFICATION):
        gated.append(SMOOTH_ERROR)
    for metric in gated:
        old, new = before.samples(metric), now.samples(metric)
        if old and new:
            yield gate(case.id, title, metric, before, now)
        elif old:
            yield Finding(
                case.id, title, DRIFT.name, metric.name, "worse", True, statistics.median(old),
                words="it can't be had any more",
            )  # fmt: skip
    for metric in SHOWN:
        old, new = before.samples(metric), now.samples(metric)
        if old and new:
            a, b = statistics.median(old), statistics.median(new)
            yield Finding(case.id, title, DRIFT.name, metric.name, CANT_TELL, False, a, b, b / a if a > 0 else None)


def _values(match: Match, thresholds: Sequence[Threshold]) -> Iterator[Finding]:
    """Compares the counts and bytes that are the same whenever the same step is run in the same way."""
    probe = registry().probes.get(match.probe)
    if probe is None or match.probe in _WITH_RULES_OF_THEIR_OWN:
        return
    title = full_title(match.case)
    for metric in probe.metrics:
        if not metric.exact or metric.better is None:
            continue
        old, new = (median_value(rows, metric) for rows in (match.before, match.now))
        if old is None and new is None:
            continue
        asked = [one for one in thresholds if one.is_for(metric, match.case.id)]
        gated = match.same_processor and (bool(asked) or metric in GATED)
        if old is None or new is None:
            if new is None and gated and any(row.ok for row in match.now):
                yield Finding(
                    match.case.id, title, match.probe, metric.name, "worse", True, old, words="it can't be had any more"
                )
            continue
        shares = [one.change for one in asked if one.change is not None]
        allowed = shares[-1] if shares else GPU_TOLERANCE if match.case.on_gpu else 0.0
        sign = 1 if metric.better == "lower" else -1
        grew = sign * (new - old)
        outcome = "same" if abs(grew) <= allowed * abs(old) else ("worse" if grew > 0 else "better")
        yield Finding(
            match.case.id, title, match.probe, metric.name, outcome, gated, old, new, new / old if old > 0 else None
        )


_WITH_RULES_OF_THEIR_OWN = (DRIFT.name, TIME.name, "leak")  # or none: what a leak comes to is a fit


def _times(matching: Matching, thresholds: Sequence[Threshold]) -> Iterator[Finding]:
    """Compares the steps of cases that were timed on like machines, and each strategy's ratio to stored."""
    timed = {match.case: match for match in matching.matches if match.probe == TIME.name}
    found: list[tuple[Match, Metric, Change, Threshold | None, bool]] = []
    for case, match in timed.items():
        asked = [one for one in thresholds if one.is_for(_STEP, case.id) and one.change is not None]
        old, new = (_launches(rows) for rows in (match.before, match.now))
        if old and new:
            change = change_of(
                list(old.values()), list(new.values()), in_turn=took_turns(match.before, match.now),
                ratios=ratios_in_turn(match.now, match.before),
            )  # fmt: skip
            found.append((match, _STEP, change, asked[-1] if asked else None, bool(asked) and not match.unlike))
        base = timed.get(case.stored())
        if base is None or case == case.stored():
            continue
        asked = [one for one in thresholds if one.is_for(TO_STORED, case.id) and one.change is not None]
        ratios = [launch_ratios(a, b, _STEP.name) for a, b in ((match.before, base.before), (match.now, base.now))]
        if ratios[0] and ratios[1]:
            change = change_of(*ratios, in_turn=took_turns(match.before, match.now))
            enough = change.low is not None or bool(asked)
            found.append((match, TO_STORED, change, asked[-1] if asked else None, enough and not match.unlike))
    shares = [one.change if one is not None and one.change is not None else TIME_CHANGE for *_, one, _ in found]
    outcomes = verdicts([change for _, _, change, _, _ in found], shares)
    for (match, metric, change, _, gated), outcome in zip(found, outcomes, strict=True):
        yield Finding(
            match.case.id, full_title(match.case), TIME.name, metric.name, outcome if not match.unlike else CANT_TELL,
            gated, change.before, change.now, change.factor, low=change.low, high=change.high,
            words=_why_untold(match, change) if outcome == CANT_TELL or match.unlike else None,
        )  # fmt: skip


def _launches(rows: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Returns the step of each launch."""
    return {
        (row.environment_id, row.repeat): value
        for row in rows
        if row.ok and (value := row.number(_STEP.name)) is not None and value > 0
    }


def _why_untold(match: Match, change: Change) -> str | None:
    if match.unlike:
        return f"measured on unlike machines ({', '.join(match.unlike)})"
    before, now = change.launches
    if change.low is None or change.high is None:
        return f"{before} and {now} launches; {LEAST_LAUNCHES} a side can tell (--revbench-repeats={LEAST_LAUNCHES})"
    needed = change.launches_to_tell(WORTH_TELLING)
    reach = math.sqrt(change.high / change.low) - 1
    rest = f"; about {needed} would tell a change of {WORTH_TELLING:.0%}" if needed is not None else ""
    return f"the interval of {min(before, now)} launches reaches {reach:.0%} to either side{rest}"
