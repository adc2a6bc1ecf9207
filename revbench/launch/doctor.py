"""`revbench.doctor`: every fault that is known, looked for in a worker process, whose death is a finding, too."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revbench.case import Case
from revbench.checkup.declared import CHECKS, Finding
from revbench.errors import UserError, unknown
from revbench.launch.interactive import case_of
from revbench.paper.residual import ResidualArchitecture
from revbench.runner.client import WorkerServer
from revbench.runner.kept import kept_server

if TYPE_CHECKING:
    from torch import Tensor, nn

_BATCH_SIZE, _TOKENS = 4, 16
_PATIENCE_SECONDS = 180.0  # of one check

Show = Callable[[Finding], None]


@dataclass(frozen=True)
class Examination:
    """What was found, check by check.

    Attributes:
        model: what was examined, by its name.
        findings: in the order of the checks.
    """

    model: str
    findings: Sequence[Finding]

    @property
    def failed(self) -> list[Finding]:
        """The checks that found a fault."""
        return [finding for finding in self.findings if finding.verdict == "failed"]

    @property
    def ok(self) -> bool:
        """Whether none did."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {"model": self.model, "ok": self.ok, "findings": [finding.to_json() for finding in self.findings]}

    def __str__(self) -> str:
        return "\n".join(lines_of(self))

    def assert_ok(self, *allowed: str) -> None:
        """Raise if a check failed, for a test.

        Args:
            allowed: names of checks that may fail.

        Raises:
            AssertionError: which, what was found, what it means and the mend.
            UserError: an unknown check.
        """
        for name in allowed:
            if name not in CHECKS:
                raise unknown("check", name, CHECKS)
        failed = [finding for finding in self.failed if finding.check not in allowed]
        if failed:
            raise AssertionError("\n".join(line for finding in failed for line in _of_a_failure(finding)))


def examine(
    what: Case | str | nn.Module | Callable[[], Any],
    batch: Any = None,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    checks: Sequence[str] = (),
    show: Show = lambda finding: None,
    **fields: Any,
) -> Examination:
    """Look for every fault that is known of reversible networks in anybody's.

    Everything is compared with the derivative of the network's own loss, in float64, from the loss at weights that are moved a
    little: no second network is needed, and nothing is known of how this one back-propagates. Each check works on a copy, in
    another process.

    Args:
        what: a module; a function that returns one, or ``(module, make_batch, loss)``; the name of a factory
            (``package.module:factory``) or of the catalogue; or a case. A name is best: its network can be made deeper.
        batch: what a module is called with: ``inputs``, ``(inputs, targets)``, or a function ``make_batch(count, generator)``.
            Small is enough, and quicker.
        loss: from outputs and targets to a scalar; the mean square of the outputs if not given.
        checks: names of `revbench.checkup.declared.CHECKS`; all if empty.
        show: called with each finding as it is made.
        fields: of the case, e.g. ``batch_size=8``.

    Returns:
        The findings; ``print`` shows them, `Examination.assert_ok` is for a test.

    Raises:
        UserError: an unknown check or field, a network that can't be had, or a batch that it can't be called with.

    Example:
        >>> revbench.doctor(model, torch.randn(4, 3, 32, 32)).assert_ok()
    """
    names = list(checks) or list(CHECKS)
    for name in names:
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
    for field in fields:
        known = [one.name for one in dataclasses.fields(Case) if one.name not in ("model", "dtype", "autocast")]
        if field not in known:
            raise unknown("field of a case", field, known)
    scratch = Path(tempfile.mkdtemp(prefix="revbench-"))
    try:
        given = {"batch_size": _BATCH_SIZE, **fields} if batch is None or callable(batch) else fields
        base, variables = case_of(what, batch, loss, given if not isinstance(what, Case) else fields, scratch)
        case = _small(base.replace(dtype="float64", autocast="none")).check()
        with kept_server(variables) as server:
            return Examination(case.model, _all(server, case, names, show))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _small(case: Case) -> Case:
    """Returns the case with small inputs where it does not say, of a network of the catalogue: the loss is taken many times."""
    known = case.architecture
    if isinstance(known, ResidualArchitecture) and case.image_size is None:
        return case.replace(image_size=known.smallest_image)
    if known is not None and known.item == "token" and case.sequence_length is None:
        return case.replace(sequence_length=_TOKENS)
    return case


def _all(server: WorkerServer, case: Case, names: Sequence[str], show: Show) -> list[Finding]:
    found: list[Finding] = []
    left = list(names)

    def add(finding: Finding) -> None:
        found.append(finding)
        show(finding)

    while left:
        begun: list[str] = []

        def hear(message: Mapping[str, Any], begun: list[str] = begun) -> None:
            if "begins" in message:
                begun.append(message["begins"])
            elif "check" in message:
                add(Finding(message["check"], message["verdict"], message["found"]))

        answer = server.measure(
            [case], "doctor", options={"checks": left}, timeout_seconds=None, silence_seconds=_PATIENCE_SECONDS, progress=hear
        )  # fmt: skip
        if answer["status"] == "ok":
            break
        if not begun:
            raise UserError(f"{case.model} can't be examined: {answer['message']}")
        if answer["status"] == "timeout":
            add(Finding(begun[-1], "can't tell", f"it took longer than {_PATIENCE_SECONDS:.0f} s"))
        elif answer["status"] == "oom":
            add(Finding(begun[-1], "can't tell", f"there is not enough memory: {answer['message']}"))
        else:
            add(Finding(begun[-1], "failed", f"the process died: {answer['message']}"))
        left = left[left.index(begun[-1]) + 1 :]
    return found


def lines_of(examination: Examination) -> list[str]:
    """Returns an examination as a table for a terminal, with what each failure means and its mend."""
    lines = [line_of(finding) for finding in examination.findings]
    counts = {verdict: sum(f.verdict == verdict for f in examination.findings) for verdict in ("passed", "failed")}
    rest = len(examination.findings) - counts["passed"] - counts["failed"]
    lines += ["", f"{counts['passed']} passed, {counts['failed']} failed, {rest} can't be told of {examination.model}"]
    for finding in examination.failed:
        lines += ["", *_of_a_failure(finding)]
    return lines


def line_of(finding: Finding) -> str:
    """Returns one line of that table."""
    return f"{finding.verdict:<10}  {finding.check:<22}  {finding.words}"


def _of_a_failure(finding: Finding) -> list[str]:
    check = CHECKS[finding.check]
    return [
        f"{finding.check}: {check.question} No: {finding.words}.", f"  It means: {check.means}", f"  Mend: {check.mend}"
    ]  # fmt: skip
