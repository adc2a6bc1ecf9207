"""The drift of the gradient as tables: both parts of it, the verdicts, what blocks do to errors, and whether steps repeat."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from revbench.case import Case
from revbench.numerics.statistics import ENOUGH_DRAWS, INTERVAL_DRAWS, QUANTILE_DRAWS, summarise_draws
from revbench.numerics.verdict import PLACE_COLUMNS, UNSEEN, judge
from revbench.report.document import MISSING, Table
from revbench.report.drift_cases import DriftCases, own_functions
from revbench.report.evidence import Evidence
from revbench.results.schema import Metric
from revbench.titles import arithmetic_of, circumstances, strategy_of, title_of
from revbench.units import human_count, human_degrees, human_share

MOST_NAMED = 12  # networks in a note

Show = Callable[[float], str]


def drift_table(evidence: Evidence) -> Table | None:
    """Angle, smooth part, flips and the activations' error of each case, with those of stored beside them."""
    cases = evidence.cases("drift")
    if not cases:
        return None
    names = DriftCases(evidence, cases)
    rows: list[list[str]] = []
    breaks = []
    for group in names.networks:
        breaks.append(len(rows))
        for case in group:
            failure = evidence.failure(case, "drift")
            rows.append(
                [
                    names.network(case), *names.strategy(case), arithmetic_of(case),
                    failure or _spread(evidence, case, "angle_degrees", human_degrees),
                    _middle(evidence, case, "stored_angle_degrees", human_degrees),
                    _middle(evidence, case, "smooth_error_epsilons", _count),
                    _interval(evidence, case, "smooth_amplification"),
                    _flips(evidence, case),
                    _middle(evidence, case, "activation_error_epsilons", _count),
                ]
            )  # fmt: skip
    head = ("Network", *names.strategy_column, "Arithmetic")
    columns = (*head, "Angle", "of stored", "Smooth error, ε", "to stored", "Flips", "Activations, ε")
    together = list(
        dict.fromkeys(
            f"{names.network(group[0])}: {circumstances(group[0]).partition(', ')[2]}" for group in names.networks
        )
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
    return Table("Angle and error of the gradient, against float64", columns, rows, len(head), notes, breaks[1:])


def error_table(evidence: Evidence) -> Table | None:
    """What an analyst asks of each gradient: the whole error beside a batch's noise, conditioning, and number by number."""
    cases = [case for case in evidence.cases("drift") if evidence.samples(case, "drift", "significant_digits")]
    if not cases:
        return None
    names = DriftCases(evidence, cases)
    rows: list[list[str]] = []
    breaks = []
    for group in names.networks:
        breaks.append(len(rows))
        rows += [
            [
                names.network(case), *names.strategy(case), arithmetic_of(case),
                _middle(evidence, case, "relative_error", human_share),
                _middle(evidence, case, "stored_relative_error", human_share),
                _middle(evidence, case, "error_over_noise", human_share),
                _digits(evidence, case),
                _middle(evidence, case, "gradient_condition", _count),
                _middle(evidence, case, "backward_error_epsilons", _count),
                _middle(evidence, case, "component_ulps_median", _count),
                _middle(evidence, case, "component_ulps_q99", _count),
                _middle(evidence, case, "wrong_sign_share", human_share),
            ]
            for case in group
        ]  # fmt: skip
    head = ("Network", *names.strategy_column, "Arithmetic")
    columns = (
        *head, "Whole error", "stored's", "Of noise", "Digits", "Condition", "Backward, ε", "Ulps, median", "99 %", "Wrong signs",
    )  # fmt: skip
    notes = [
        "Medians over draws. Whole error: flips and all, relative. Of noise: over the standard deviation of the gradient from"
        " batch to batch at the same weights. Digits: significant decimal digits of the whole, with the interval of the"
        " median. Condition: how many times a small relative change of the weights, in a random direction, changes the"
        " gradient; backward: the relative change of the weights, in epsilons, that explains the smooth error. Ulps: error of a"
        " number of the gradient in units of its last place; wrong signs: share of numbers with the other sign."
        f" {names.if_one_strategy}".rstrip(),
    ]
    return Table("The gradient's error, more closely", columns, rows, len(head), notes, breaks[1:])


def verdict_table(evidence: Evidence) -> Table | None:
    """In words, case by case, whether the gradient can be trusted: by the draws of all launches together."""
    rows = []
    names = DriftCases(evidence, evidence.cases("drift"))
    for case in (case for group in names.networks for case in group):
        launches = evidence.launches(case, "drift")
        head = [names.network(case), *names.strategy(case), arithmetic_of(case)]
        if failure := evidence.failure(case, "drift"):
            rows.append([*head, f"{failure}: {evidence.message(case, 'drift')}", MISSING])
            continue
        words = _verdict_words(evidence, case)
        if words is None:
            continue
        found = [(angle, row) for row in launches if (angle := row.number("worst_tensor_angle_degrees")) is not None]
        angle, worst = max(found, key=lambda pair: pair[0], default=(None, None))
        tensor = (
            MISSING
            if angle is None or worst is None
            else f"{human_degrees(angle)}, {worst.metrics.get('worst_tensor', MISSING)}"
        )
        rows.append([*head, words, tensor])
    if not rows:
        return None
    notes = [
        f"Safe: in every draw the whole error is at most {UNSEEN:.0%} of a batch's noise, which adds a hundredth to its variance."
        " As stored: more than that, but at most twice the error of stored in the same arithmetic. Unsafe: more than half of"
        " that noise, or half of some block's gradient is error and twice what stored has, or a step leaves a trace that"
        " stored does not; caution: between, or nobody measured the noise."
        f" Worst tensor: the largest angle of any parameter tensor in any draw. {names.if_one_strategy}",
    ]
    columns = ("Network", *names.strategy_column, "Arithmetic", "Verdict", "Worst tensor")
    return Table("Can the gradient be trusted?", columns, rows, len(columns), notes)


_SEVERITY = {"caution": 1, "unsafe": 2}


def _verdict_words(evidence: Evidence, case: Case) -> str | None:
    """Of all launches' draws; of rows of an older revbench, which lack what is judged by, what they say themselves."""
    launches = evidence.launches(case, "drift")
    samples = {
        name: values
        for name in dict.fromkeys(name for row in launches for name in row.samples)
        if (values := evidence.samples(case, "drift", name))
    }
    own = own_functions(evidence, case)
    if not {"relative_error", "significant_digits"} <= samples.keys() or (own and "derivative_error" not in samples):
        words = [str(row.metrics["verdict_words"]) for row in launches if row.metrics.get("verdict_words")]
        return max(words, key=lambda said: _SEVERITY.get(said.partition(":")[0], 0), default=None)
    places: dict[str, list[Metric]] = {name: [] for name in PLACE_COLUMNS}
    for row in launches:
        series = evidence.series_of(row)
        if all(name in series for name in PLACE_COLUMNS) and _are_numbers(series):
            for name, column in places.items():
                column += series[name]
    trace = dict.fromkeys(str(row.metrics["trace"]) for row in launches if row.metrics.get("trace"))
    casts = dict.fromkeys(str(row.metrics["coarse_casts"]) for row in launches if row.metrics.get("coarse_casts"))
    return judge(
        samples, places, case.strategy, arithmetic_of(case), list(trace), ", ".join(casts) or None,
        own,
    ).words  # fmt: skip


def _are_numbers(series: Mapping[str, Sequence[Metric]]) -> bool:
    return all(
        value is None or isinstance(value, (int, float))
        for name in ("relative_error", "stored_relative_error")
        for value in series[name]
    )


def stability_table(evidence: Evidence) -> Table | None:
    """What each block's functions do to errors, and the reconstruction error predicted beside the measured."""
    rows = []
    for case in evidence.cases("lipschitz"):
        measured = evidence.samples(case, "drift", "activation_error")
        growth = evidence.value(case, "drift", "activation_growth_per_block")
        broken = [row.metrics.get("breakdown_block") for row in evidence.launches(case, "drift")]
        predicted, bounded = (
            evidence.value(case, "lipschitz", f"{name}_activation_error") for name in ("predicted", "bounded")
        )
        rows.append(
            [
                title_of(case.model), arithmetic_of(case),
                evidence.failure(case, "lipschitz") or _largest(evidence, case, "f"),
                    _largest(evidence, case, "g"), _largest(evidence, case, "inverse"),
                _condition(evidence, case),
                f"{predicted.median:.1e}" if predicted else MISSING,
                f"{statistics.median(measured):.1e}" if measured else MISSING,
                f"{statistics.median(measured) / predicted.median:.2g}" if measured and predicted else MISSING,
                f"{bounded.median:.1e}" if bounded else MISSING,
                f"{growth.median:.2f} ×" if growth else MISSING,
                next((f"block {str(name).rpartition('.')[2]}" for name in broken if name), "nowhere" if broken else MISSING),
            ]
        )  # fmt: skip
    if not rows:
        return None
    columns = (
        "Network", "Arithmetic", "Lipschitz F", "G", "inverse", "Condition", "Predicted", "Measured", "over it", "Worst case",
        "Growth", "Breaks down",
    )  # fmt: skip
    notes = [
        "Local Lipschitz constants by power iteration on Jacobian-vector products: median over blocks (largest). Inverse: of"
        " the map from a block's output to its input; condition: of that inverse, how many times a relative error may grow"
        " through the block. Predicted, from these: the relative error of the reconstructed"
        " activations of the worst block, if errors have no particular direction; worst case: if each takes the direction that"
        " grows most. Measured: the median over draws. Growth: the factor a block that fits the longest run of blocks. Breaks"
        " down: the first block on the way back whose activations are off by a tenth.",
    ]
    return Table("Why: what blocks do to an error", columns, rows, 2, notes)


def _condition(evidence: Evidence, case: Case) -> str:
    middle, most = (evidence.value(case, "lipschitz", f"inverse_condition{end}") for end in ("", "_largest"))
    return f"{middle.median:.1f} ({most.median:.1f})" if middle and most else MISSING


def _largest(evidence: Evidence, case: Case, name: str) -> str:
    middle, most = (evidence.value(case, "lipschitz", f"lipschitz_{name}{end}") for end in ("", "_largest"))
    return f"{middle.median:.1f} ({most.median:.1f})" if middle and most else MISSING


def determinism_table(evidence: Evidence) -> Table | None:
    """Whether identical steps give identical bits."""
    rows = []
    for case in evidence.cases("determinism"):
        failure = evidence.failure(case, "determinism")
        launches = evidence.launches(case, "determinism")
        for row in sorted(launches, key=lambda row: row.number("identical") or 0)[:1]:  # the worst launch
            m = row.metrics
            where = m.get("first_difference")
            rows.append(
                [
                    title_of(case.model), strategy_of(case), circumstances(case), str(m.get("runs", MISSING)),
                    f"part at the {where}" if where else "equal",
                    f"{m.get('differing_gradients', MISSING)} of {m.get('gradients', MISSING)}",
                ]
            )  # fmt: skip
        if failure:
            rows.append([title_of(case.model), strategy_of(case), circumstances(case), MISSING, failure, MISSING])
    if not rows:
        return None
    notes = ["The same step from the same weights, batch and random numbers, compared bit for bit with the first."]
    columns = ("Network", "Strategy", "Case", "Steps", "Bits", "Gradients that differ")
    return Table("Do identical steps repeat?", columns, rows, 5, notes)


def _draws(evidence: Evidence, cases: list[Case]) -> str:
    counts = {len(evidence.samples(c, "drift", "angle_degrees")) for c in cases if evidence.failure(c, "drift") is None}
    counts.discard(0)
    few = f". Fewer than {ENOUGH_DRAWS} draws: the quantiles are rough" if counts and min(counts) < ENOUGH_DRAWS else ""
    return f"{' or '.join(map(str, sorted(counts))) or 'no'} draws of weights and batch{few}"


def _middle(evidence: Evidence, case: Case, metric: str, show: Show) -> str:
    summary = summarise_draws(evidence.samples(case, "drift", metric))
    return MISSING if summary is None else show(summary.median)


def _spread(evidence: Evidence, case: Case, metric: str, show: Show) -> str:
    summary = summarise_draws(evidence.samples(case, "drift", metric))
    if summary is None:
        return MISSING
    low, high = (
        (summary.smallest, summary.largest)
        if summary.q05 is None or summary.q95 is None
        else (summary.q05, summary.q95)
    )
    return show(summary.median) + (f" ({show(low)} to {show(high)})" if high > 0 else "")


def _interval(evidence: Evidence, case: Case, metric: str) -> str:
    summary = summarise_draws(evidence.samples(case, "drift", metric))
    if summary is None:
        return MISSING
    low, high = (
        (summary.smallest, summary.largest)
        if summary.low is None or summary.high is None
        else (summary.low, summary.high)
    )
    return f"{summary.median:.3g} × ({low:.3g} to {high:.3g})"


def _flips(evidence: Evidence, case: Case) -> str:
    found = _middle(evidence, case, "flips", lambda v: f"{v:,.0f}")
    expected = evidence.samples(case, "drift", "expected_flips")
    return found + (f" ({human_count(statistics.fmean(expected))} expected)" if expected and found != MISSING else "")


def _digits(evidence: Evidence, case: Case) -> str:
    summary = summarise_draws(evidence.samples(case, "drift", "significant_digits"))
    if summary is None:
        return MISSING
    interval = "" if summary.low is None or summary.high is None else f" ({summary.low:.1f} to {summary.high:.1f})"
    return f"{summary.median:.1f}{interval}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
