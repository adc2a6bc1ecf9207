"""Cells of metrics that are told by draws: medians with what they lie between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from revbench.case import Case
from revbench.numerics.statistics import summarise_draws
from revbench.probes import Metric
from revbench.report.document import MISSING
from revbench.report.evidence import Evidence
from revbench.report.table import Column
from revbench.units import without_same_unit

Cell = Callable[[Evidence, Case, Metric], str]


def median_of_draws(evidence: Evidence, case: Case, metric: Metric) -> str:
    """Returns the median over draws."""
    summary = summarise_draws(evidence.samples(case, metric))
    return MISSING if summary is None else metric.unit.show(summary.median)


def spread_of_draws(evidence: Evidence, case: Case, metric: Metric) -> str:
    """Returns the median, and the quantiles of 5 and 95 %; of few draws the smallest and the largest."""
    summary = summarise_draws(evidence.samples(case, metric))
    if summary is None:
        return MISSING
    show = metric.unit.show
    low, high = (
        (summary.smallest, summary.largest)
        if summary.q05 is None or summary.q95 is None
        else (summary.q05, summary.q95)
    )
    return show(summary.median) + (f" ({without_same_unit(show(low), show(high))} to {show(high)})" if high > 0 else "")


def interval_of_draws(evidence: Evidence, case: Case, metric: Metric) -> str:
    """Returns the median of a ratio, and its interval of 95 %; of few draws the smallest and the largest."""
    summary = summarise_draws(evidence.samples(case, metric))
    if summary is None:
        return MISSING
    low, high = (
        (summary.smallest, summary.largest)
        if summary.low is None or summary.high is None
        else (summary.low, summary.high)
    )
    return f"{summary.median:.3g} × ({low:.3g} to {high:.3g})"


def draws_column(evidence: Evidence, metric: Metric, cell: Cell = median_of_draws) -> Column[Case]:
    """Returns a column of a metric that is told by draws."""
    return Column(metric.title, partial(_of_metric, evidence, metric, cell))


def _of_metric(evidence: Evidence, metric: Metric, cell: Cell, case: Case) -> str:
    return cell(evidence, case, metric)
