"""The probe ``doctor``: all checks of one network, one after the other, in one process."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.checkup.checks import check
from revbench.checkup.declared import CHECKS, Finding
from revbench.checkup.subject import Subject
from revbench.errors import unknown
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload, build_workload


def examine(workload: Workload, *, progress: Progress, checks: Sequence[str] = ()) -> Measurement:
    """Looks for every fault that is known.

    Args:
        workload: its strategy is what is examined; what is compared with a derivative is in float64, whatever its case says.
        progress: called before each check with its name (``begins``), and after it with what was found.
        checks: names of `revbench.checkup.declared.CHECKS`; all if empty.

    Returns:
        Metrics ``passed``, ``failed``, ``unknown``, ``failures``; series ``check``, ``verdict``, ``found``.

    Raises:
        UserError: an unknown check, a batch that the network can't be called with.
    """
    names = list(checks) or list(CHECKS)
    for name in names:
        if name not in CHECKS:
            raise unknown("check", name, CHECKS)
    exact = workload.case.replace(dtype="float64", autocast="none")
    subject = Subject(workload if exact == workload.case else build_workload(exact))
    subject.check_batch()
    found: list[Finding] = []
    for name in names:
        progress({"begins": name})
        found.append(check(subject, name))
        progress({"check": name, "verdict": found[-1].verdict, "found": found[-1].words})
    failed = [finding.check for finding in found if finding.verdict == "failed"]
    metrics = {
        "passed": sum(finding.verdict == "passed" for finding in found),
        "failed": len(failed),
        "unknown": sum(finding.verdict == "can't tell" for finding in found),
        "failures": ", ".join(failed) or None,
    }
    columns: dict[str, Sequence[Value]] = {
        "check": [finding.check for finding in found],
        "verdict": [finding.verdict for finding in found],
        "found": [finding.words for finding in found],
    }
    return Measurement(metrics, series=columns)
