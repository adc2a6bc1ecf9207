"""What ``revbench run`` does: each model under each strategy, launch after launch, and the report of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.case.pairs import paired
from revbench.errors import UserError
from revbench.probes import Probe
from revbench.report import Written, report_if_it_ends_early, write_report
from revbench.results.schema import Row
from revbench.runner import Session, open_run_of_command
from revbench.runner.registry import offered_names, probe_of

_ONLY_RECONSTRUCTED = "--kept-half-blocks and --certify are of strategy reconstructed"


@dataclass(frozen=True)
class Measured:
    """What a command comes to: rows, and the files of their report."""

    rows: Sequence[Row]
    written: Written


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What ``revbench run`` is asked for; the constructor only stores, `check` says what is wrong.

    Attributes:
        models: as `Case.model`.
        strategies: all of ours that a model supports if empty.
        probes: names of those that measure one case.
        repeats: launches of each case, interleaved.
        nonreversible: of every strategy but ``stored``.
        reconstructed: the fields that the strategy ``reconstructed`` alone has.
        fields: the other fields of the cases.
    """

    models: Sequence[str]
    strategies: Sequence[str]
    probes: Sequence[str]
    repeats: int
    nonreversible: str
    reconstructed: Mapping[str, Any]
    fields: Mapping[str, Any]

    def check(self) -> None:
        """Tell mistakes before anything takes long, as far as that is possible without building a network.

        Raises:
            UserError: an unknown probe or one that this command does not measure, no launch, or a case that can't be.
        """
        for name in self.probes:
            found = probe_of(name)
            if name not in offered_names() or found.resumable:
                raise UserError(
                    f"--probe {name} can't be measured so: it needs a memory limit, or trains; this command offers"
                    f" {', '.join(offered_names())}"
                )
        if self.repeats < 1:
            raise UserError(f"--repeats={self.repeats} must be at least 1")
        for base in self._bases():
            for name in self.strategies or ["stored"]:
                base.under(name, self.nonreversible).check()
        if self.strategies and "reconstructed" not in self.strategies and any(self.reconstructed.values()):
            raise UserError(f"{_ONLY_RECONSTRUCTED}, which is not among these cases")

    def cases(self, session: Session) -> list[Case]:
        """Returns each model under each strategy that is asked for, or that it supports.

        Raises:
            UserError: what a worker finds wrong with a network; a factory that can't be built is found here.
        """
        found = []
        for base in self._bases():
            base = base.replace(device=session.device)
            supported = session.supported_strategies(base)
            for name in self.strategies or supported:
                case = base.under(name, self.nonreversible)
                found.append((case.replace(**self.reconstructed) if name == "reconstructed" else case).check())
        if any(self.reconstructed.values()) and not any(case.strategy == "reconstructed" for case in found):
            raise UserError(f"{_ONLY_RECONSTRUCTED}, which no model supports")
        return found

    def _bases(self) -> Iterator[Case]:
        return (Case(model=model, **self.fields) for model in dict.fromkeys(self.models))


def measure_all(
    asked: Measuring,
    *,
    device: str,
    output: Path | None,
    resume: Path | None,
    retry: bool,
    note: Callable[[str], None],
    show: Callable[[Row, str], None],
) -> Measured:
    """Measure, write the rows, and render the report, also of what is there when it is interrupted.

    Args:
        asked: what is measured.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        output, resume: the run folder; a new one, or one to go on with.
        retry: measure again what crashed, timed out or lacked memory.
        note: told what a person should know of a resumed run.
        show: told of each row, with a remark if it was there before.

    Raises:
        UserError: settings that can't be, before anything is written; or what a worker finds wrong with a network.
        RunEnded: a process died, or the system asked this one to go.
        Interrupted: Ctrl-C.
    """
    asked.check()
    with open_run_of_command(output=output, resume=resume, retry=retry, device=device) as session:
        for line in session.notes:
            note(line)
        with report_if_it_ends_early(session):
            cases = asked.cases(session)
            for repeat in range(1, asked.repeats + 1):
                for name in asked.probes:
                    for row in _launch(session, cases, probe_of(name), repeat):
                        show(row, session.remark(row))
        folder = session.journal.folder
        return Measured(session.journal.run.rows, write_report([folder], folder))


def _launch(session: Session, cases: Sequence[Case], probe: Probe, repeat: int) -> Iterator[Row]:
    """Yields the rows of one launch; cases that are compared are measured together where the probe can."""
    options = probe.launch_options(repeat)
    if not probe.takes_group:
        for case in cases:
            yield session.measure(case, probe.name, repeat=repeat, options=options)
        return
    for group in paired(cases):
        yield from session.measure_together(group, probe.name, repeat=repeat, options=options)
