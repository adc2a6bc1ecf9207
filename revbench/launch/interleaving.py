"""Two versions of the code, measured side by side: their steps take turns, so that a time can be judged soundly."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.case.pairs import paired
from revbench.compare import Comparison, Threshold, compare_runs, thresholds_of, write_gate
from revbench.errors import UserError
from revbench.launch.measuring import Measuring
from revbench.launch.two_versions import check_versions
from revbench.launch.worktree import worktree_of
from revbench.probes import Probe
from revbench.probes.baton import PROTOCOL, release
from revbench.probes.declared import TIME
from revbench.report import write_report
from revbench.results.journal import open_journal
from revbench.results.schema import Row
from revbench.runner import Session, WorkerServer
from revbench.runner.registry import probe_of

SECONDS = 4.0  # of steps of a case in a launch: turns enough that ten launches tell 5 %
BY_DEFAULT = "step_seconds > 2%"


@dataclass(frozen=True)
class SideBySide:
    """What came out.

    Attributes:
        folder, baseline: run folders of this version and of the other.
        commit: of the other.
        comparison: of the two.
    """

    folder: Path
    baseline: Path
    commit: str
    comparison: Comparison


def measure_side_by_side(
    asked: Measuring,
    ref: str,
    *,
    device: str,
    output: Path | None,
    thresholds: Sequence[Threshold],
    note: Callable[[str], None],
    show: Callable[[Row, str], None],
) -> SideBySide:
    """Measure the current folder's code and another version of it; both with this interpreter and its packages.

    Args:
        asked: what is measured.
        ref: the other version, as git knows it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output: the run folder, with the report and ``gate.json`` and ``gate.md``; that of the other version stands beside it.
        thresholds: of the gate; a growth of a step by 2 % if there are none.
        note: told what a person should know.
        show: told of each row of this version, with an empty remark.

    Raises:
        UserError: settings that can't be, no such version, one that does not know how to take turns, or a model whose code is
            not under git here.
    """
    asked.check()
    with ExitStack() as stack:
        tree, commit = stack.enter_context(worktree_of(ref))
        _check_protocol(tree.other, ref)
        check_versions(tree, ref, asked.models)
        ours, theirs = stack.enter_context(WorkerServer()), stack.enter_context(WorkerServer(tree))
        environments = ours.environment(), _environment(theirs, ref)
        journal = open_journal(None, output, retry=False)
        stack.callback(journal.close)
        beside = open_journal(None, journal.folder.with_name(f"{journal.folder.name}-baseline"), retry=False)
        stack.callback(beside.close)
        here = Session(journal, ours, environments[0], device=device)
        of_ours = commit if _is_of_ours(tree.other) else None
        there = Session(beside, theirs, environments[1], device=device, commit=of_ours)
        for line in here.notes:
            note(line)
        cases = asked.cases(here)
        for repeat in range(1, asked.repeats + 1):
            for name in asked.probes:
                for row in _launch(here, there, cases, probe_of(name), repeat, ours, theirs):
                    show(row, "")
        found = compare_runs(beside.run, journal.run, thresholds or thresholds_of(_default(asked)))
        if (problem := write_gate(found, journal.folder)) is not None:
            note(problem)
        for folder, of_it in ((journal.folder, found), (beside.folder, None)):
            try:
                notes = write_report([folder], folder, comparison=of_it).notes
            except (UserError, ImportError) as error:  # what was found is worth more than how it is shown
                notes = [f"no report of {folder}: {error}"]
            for line in notes:
                note(line)
        return SideBySide(journal.folder, beside.folder, commit, found)


def _is_of_ours(tree: Path | None) -> bool:
    """Tells whether a tree is of revbench itself, not of a project that uses it."""
    return ((tree or Path()) / "revbench" / "probes" / "clock.py").is_file()


def _check_protocol(tree: Path | None, ref: str) -> None:
    """See that another version of revbench itself takes turns as this one does."""
    if not _is_of_ours(tree):
        return
    baton = (tree or Path()) / "revbench" / "probes" / "baton.py"
    if not baton.is_file() or f'PROTOCOL = "{PROTOCOL}"' not in baton.read_text(encoding="utf-8", errors="replace"):
        raise UserError(
            f"--interleave {ref}: that revbench takes turns otherwise than this one, or not; give a newer version"
        )


def _default(asked: Measuring) -> list[str]:
    return [BY_DEFAULT] if TIME.name in asked.probes else []


def _environment(server: WorkerServer, ref: str) -> dict[str, Any]:
    try:
        return server.environment()
    except UserError as error:
        raise UserError(f"--interleave {ref}: that version can't be used here: {error}") from error


def _launch(
    here: Session,
    there: Session,
    cases: Sequence[Case],
    probe: Probe,
    repeat: int,
    *servers: WorkerServer,
) -> Iterator[Row]:
    """Yields this version's rows of one launch of both."""
    options: dict[str, Any] = {**probe.launch_options(repeat), **({"max_seconds": SECONDS} if probe is TIME else {})}
    if probe is not TIME:
        for case in cases:
            for session in (here, there) if repeat % 2 else (there, here):
                row = session.measure(case, probe.name, repeat=repeat, options=options)
                if session is here:
                    yield row
        return
    for group in paired(cases):
        with _batons() as ends:
            sides = zip((here, there), ends if repeat % 2 else reversed(ends), strict=True)

            def measure(side: tuple[Session, Mapping[str, Any]], group: Sequence[Case] = group) -> list[Row]:
                session, end = side
                try:
                    return session.measure_together(
                        group, probe.name, repeat=repeat, options={**options, "baton": dict(end)}
                    )
                finally:
                    release(str(end["other"]))  # whatever became of this worker, the other one goes on

            with ThreadPoolExecutor(2) as pool:
                answers = [pool.submit(measure, side) for side in sides]
                try:
                    rows, _ = (answer.result() for answer in answers)
                except BaseException:  # Ctrl-C above all
                    for server in servers:
                        server.abandon()
                    raise
        yield from rows


@contextmanager
def _batons() -> Iterator[list[Mapping[str, Any]]]:
    """Inside, there are the two ends of a baton, the first one first."""
    with tempfile.TemporaryDirectory(prefix="revbench-") as scratch:
        pipes = [str(Path(scratch) / name) for name in ("first", "second")]
        for pipe in pipes:
            os.mkfifo(pipe, 0o600)
        held = [os.open(pipe, os.O_RDWR) for pipe in pipes]  # so that what is told before a worker listens is not lost
        session = secrets.token_hex(4)
        try:
            yield [{"own": pipes[i], "other": pipes[1 - i], "first": i == 0, "session": session} for i in (0, 1)]
        finally:
            for end in held:
                os.close(end)
