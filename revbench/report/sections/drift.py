"""Drift of the gradient: how far it is from the float64 one, in both of its parts, and whether that can be trusted."""

from __future__ import annotations

import statistics

from revbench.case import Case
from revbench.case.labels import circumstances
from revbench.numerics.statistics import ENOUGH_DRAWS, INTERVAL_DRAWS, QUANTILE_DRAWS, summarise_draws
from revbench.probes import Metric
from revbench.probes.declared import DRIFT
from revbench.report.charts.drift import drift_depth_figures, going_back_figures
from revbench.report.document import MISSING, Section, Table, leading
from revbench.report.draws import draws_column, interval_of_draws, spread_of_draws
from revbench.report.drift_cases import DriftCases
from revbench.report.evidence import Evidence
from revbench.report.sections.drift_causes import determinism_table, stability_table
from revbench.report.sections.drift_verdicts import verdict_table
from revbench.report.table import Column, lay_out
from revbench.units import human_count

MOST_NAMED = 12  # networks in a note


def section(evidence: Evidence) -> Section | None:
    """Verdicts first, then the numbers."""
    blocks = [verdict_table(evidence), drift_table(evidence), *drift_depth_figures(evidence)]
    return Section.of("Drift of the gradient", blocks)


def causes_section(evidence: Evidence) -> Section | None:
    """Returns the numbers more closely, and why they are so."""
    blocks = [
        error_table(evidence), *leading(going_back_figures(evidence)), stability_table(evidence), determinism_table(evidence),
    ]  # fmt: skip
    return Section.of("Drift, more closely", blocks, folded=True)


def drift_table(evidence: Evidence) -> Table | None:
    """Returns angle, smooth part, flips and the activations' error of each case, with those of stored beside them."""
    cases = evidence.cases(DRIFT)
    if not cases:
        return None
    names = DriftCases(evidence, cases)

    def angle(evidence: Evidence, case: Case, metric: Metric) -> str:
        return evidence.failure(case, DRIFT) or spread_of_draws(evidence, case, metric)

    columns = [
        *names.heads(),
        draws_column(evidence, DRIFT["angle_degrees"], angle),
        draws_column(evidence, DRIFT["stored_angle_degrees"]),
        draws_column(evidence, DRIFT["smooth_error_epsilons"]),
        draws_column(evidence, DRIFT["smooth_amplification"], interval_of_draws),
        Column(DRIFT["flips"].title, lambda case: _flips(evidence, case)),
        draws_column(evidence, DRIFT["activation_error_epsilons"]),
    ]
    together = list(
        dict.fromkeys(f"{names.network(group[0])}: {circumstances(group[0], dtype=False)}" for group in names.networks)
    )
    if len(together) > MOST_NAMED:
        together[MOST_NAMED:] = ["and so on"]
    notes = [
        "Against the gradient of stored in float64 with the same weights and batch, before weight decay. Medians"
        f" (5 % to 95 %; below {QUANTILE_DRAWS} draws smallest to largest) over {_draws(evidence, cases)}; to stored: the median"
        f" of the ratios draw by draw, with its interval of 95 % (below {INTERVAL_DRAWS} draws: smallest to largest).",
        "Smooth error: relative, in units ε of the arithmetic, with every ReLU unit and pooling window frozen to what it did in"
        " the reference; flips: those that went another way (expected: from the errors of the units' inputs and their density"
        " at zero; means). Activations: how far the reconstructed ones are from those of"
        " the forward pass, relative, of the worst block. One flip moves the angle more than all rounding, under stored alike;"
        " only the smooth error and the activations are gated against a baseline.",
        f"{names.if_one_strategy}{'; '.join(together)}.",
    ]
    return lay_out("Angle and error of the gradient, against float64", columns, names.networks, notes, name="drift")


def error_table(evidence: Evidence) -> Table | None:
    """Returns what an analyst asks of each gradient: the whole error beside a batch's noise, conditioning, and number by
    number."""
    cases = [case for case in evidence.cases(DRIFT) if evidence.samples(case, DRIFT["significant_digits"])]
    if not cases:
        return None
    names = DriftCases(evidence, cases)
    columns = [
        *names.heads(),
        draws_column(evidence, DRIFT["relative_error"]),
        draws_column(evidence, DRIFT["stored_relative_error"]),
        draws_column(evidence, DRIFT["error_over_noise"]),
        draws_column(evidence, DRIFT["significant_digits"], _digits),
        draws_column(evidence, DRIFT["gradient_condition"]),
        draws_column(evidence, DRIFT["backward_error_epsilons"]),
        draws_column(evidence, DRIFT["component_ulps_median"]),
        draws_column(evidence, DRIFT["component_ulps_q99"]),
        draws_column(evidence, DRIFT["wrong_sign_share"]),
    ]
    notes = [
        "Medians over draws. Whole error: flips and all, relative. Of noise: over the standard deviation of the gradient from"
        " batch to batch at the same weights. Digits: significant decimal digits of the whole, with the interval of the"
        " median. Condition: how many times a small relative change of the weights, in a random direction, changes the"
        " gradient; backward: the relative change of the weights, in epsilons, that explains the smooth error. Ulps: error of a"
        " number of the gradient in units of its last place; wrong signs: share of numbers with the other sign."
        f" {names.if_one_strategy}".rstrip(),
    ]
    return lay_out("The gradient's error, more closely", columns, names.networks, notes, name="drift-more-closely")


def _draws(evidence: Evidence, cases: list[Case]) -> str:
    counts = {len(evidence.samples(c, DRIFT["angle_degrees"])) for c in cases if evidence.failure(c, DRIFT) is None}
    counts.discard(0)
    few = f". Fewer than {ENOUGH_DRAWS} draws: the quantiles are rough" if counts and min(counts) < ENOUGH_DRAWS else ""
    return f"{' or '.join(map(str, sorted(counts))) or 'no'} draws of weights and batch{few}"


def _flips(evidence: Evidence, case: Case) -> str:
    flips = evidence.samples(case, DRIFT["flips"])
    found = human_count(statistics.fmean(flips)) if flips else MISSING
    expected = evidence.samples(case, DRIFT["expected_flips"])
    return found + (f" ({human_count(statistics.fmean(expected))} expected)" if expected and found != MISSING else "")


def _digits(evidence: Evidence, case: Case, metric: Metric) -> str:
    summary = summarise_draws(evidence.samples(case, metric))
    if summary is None:
        return MISSING
    interval = "" if summary.low is None or summary.high is None else f" ({summary.low:.1f} to {summary.high:.1f})"
    return f"{summary.median:.1f}{interval}"
