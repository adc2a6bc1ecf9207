"""Can the gradient be trusted? In words, case by case, by the draws of all launches together."""

from __future__ import annotations

from revbench.case import Case
from revbench.numerics.verdict import UNSEEN
from revbench.probes.declared import DRIFT
from revbench.report.document import MISSING, Table
from revbench.report.drift_cases import DriftCases, verdict_of
from revbench.report.evidence import Evidence
from revbench.report.sections import names as table_names
from revbench.report.table import lay_out, words
from revbench.units import human_degrees


def verdict_table(evidence: Evidence) -> Table | None:
    """Returns a verdict for each case, and its worst tensor."""
    names = DriftCases(evidence, evidence.cases(DRIFT))
    judged = [(case, said) for group in names.networks for case in group if (said := _verdict(evidence, case))]
    verdicts = dict(judged)
    columns = [
        *names.heads(),
        words("Verdict", lambda case: verdicts[case].partition(": ")[0]),
        words("Why", lambda case: verdicts[case].partition(": ")[2]),
        words("Worst tensor", lambda case: _worst_tensor(evidence, case)),
    ]
    notes = [
        f"Safe: in every draw the whole error is at most {UNSEEN:.0%} of a batch's noise, which adds a hundredth to its variance."
        " As stored: more than that, but at most twice the error of stored in the same arithmetic. Unsafe: more than half of"
        " that noise, or half of some block's gradient is error and twice what stored has, or a step leaves a trace that"
        " stored does not; caution: between, or nobody measured the noise."
        f" Worst tensor: the largest angle of any parameter tensor in any draw. {names.if_one_strategy}",
    ]
    return lay_out("Can the gradient be trusted?", columns, [list(verdicts)], notes, name=table_names.VERDICTS)


def _verdict(evidence: Evidence, case: Case) -> str | None:
    if failure := evidence.failure(case, DRIFT):
        return f"{failure}: {evidence.message(case, DRIFT)}"
    return verdict_of(evidence, case)


def _worst_tensor(evidence: Evidence, case: Case) -> str:
    """Returns the largest angle of any tensor in any draw, and the tensor."""
    angles = DRIFT["worst_tensor_angle_degrees"].name
    found = [(angle, row) for row in evidence.launches(case, DRIFT) if (angle := row.number(angles)) is not None]
    if not found:
        return MISSING
    angle, worst = max(found, key=lambda pair: pair[0])
    return f"{human_degrees(angle)}, {worst.metrics.get(DRIFT['worst_tensor'].name, MISSING)}"
