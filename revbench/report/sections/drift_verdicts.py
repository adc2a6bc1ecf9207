"""Can the gradient be trusted? In words, case by case, by the draws of all launches together."""

from __future__ import annotations

from collections.abc import Sequence

from revbench.case import Case
from revbench.numerics.part_table import PartTable
from revbench.numerics.verdict import PART_ERRORS, UNSEEN, judge
from revbench.probes import Metric
from revbench.probes.declared import DRIFT
from revbench.report.document import MISSING, Table
from revbench.report.drift_cases import DriftCases, own_functions
from revbench.report.evidence import Evidence
from revbench.report.table import lay_out, words
from revbench.units import human_degrees


def verdict_table(evidence: Evidence) -> Table | None:
    """Returns a verdict for each case, and its worst tensor."""
    names = DriftCases(evidence, evidence.cases(DRIFT))
    judged = [(case, said) for group in names.networks for case in group if (said := _verdict(evidence, case))]
    verdicts = dict(judged)
    columns = [
        *names.heads(),
        words("Verdict", lambda case: verdicts[case]),
        words("Worst tensor", lambda case: _worst_tensor(evidence, case)),
    ]
    notes = [
        f"Safe: in every draw the whole error is at most {UNSEEN:.0%} of a batch's noise, which adds a hundredth to its variance."
        " As stored: more than that, but at most twice the error of stored in the same arithmetic. Unsafe: more than half of"
        " that noise, or half of some block's gradient is error and twice what stored has, or a step leaves a trace that"
        " stored does not; caution: between, or nobody measured the noise."
        f" Worst tensor: the largest angle of any parameter tensor in any draw. {names.if_one_strategy}",
    ]
    return lay_out("Can the gradient be trusted?", columns, [list(verdicts)], notes)


def _verdict(evidence: Evidence, case: Case) -> str | None:
    if failure := evidence.failure(case, DRIFT):
        return f"{failure}: {evidence.message(case, DRIFT)}"
    return _verdict_words(evidence, case)


def _worst_tensor(evidence: Evidence, case: Case) -> str:
    """Returns the largest angle of any tensor in any draw, and the tensor."""
    angles = DRIFT["worst_tensor_angle_degrees"].name
    found = [(angle, row) for row in evidence.launches(case, DRIFT) if (angle := row.number(angles)) is not None]
    if not found:
        return MISSING
    angle, worst = max(found, key=lambda pair: pair[0])
    return f"{human_degrees(angle)}, {worst.metrics.get(DRIFT['worst_tensor'].name, MISSING)}"


_SEVERITY = {"caution": 1, "unsafe": 2}


def _verdict_words(evidence: Evidence, case: Case) -> str | None:
    """Returns the verdict of all launches' draws; of rows of an older revbench, which lack what is judged by, what they say
    themselves."""
    samples = {metric.name: values for metric in DRIFT.metrics if (values := evidence.samples(case, metric))}
    own = own_functions(evidence, case)
    if not {"relative_error", "significant_digits"} <= samples.keys() or (own and "derivative_error" not in samples):
        said = _all_words(evidence, case, DRIFT["verdict_words"])
        return max(said, key=lambda words: _SEVERITY.get(words.partition(":")[0], 0), default=None)
    tables = [PartTable(evidence.series_of(row)) for row in evidence.launches(case, DRIFT)]
    casts = _all_words(evidence, case, DRIFT["coarse_casts"])
    return judge(
        samples, PartTable.joined(tables, PART_ERRORS), case.strategy, case.arithmetic,
        _all_words(evidence, case, DRIFT["trace"]), ", ".join(casts) or None, own,
    ).words  # fmt: skip


def _all_words(evidence: Evidence, case: Case, metric: Metric) -> Sequence[str]:
    """Returns what the launches say, each word once."""
    said = (row.metrics.get(metric.name) for row in evidence.launches(case, DRIFT))
    return list(dict.fromkeys(str(word) for word in said if word))
