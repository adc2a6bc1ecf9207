"""Trainings: the curves of a pair with the spread of its nulls, where each ended, and what may be claimed of that."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from revbench import paper
from revbench.case import Case
from revbench.models.catalogue import CATALOGUE
from revbench.report.document import MISSING, Figure, Table
from revbench.report.evidence import Evidence, paired
from revbench.report.figures import COLOURS, RESNET_COLOUR, Array, canvas, is_resnet, svg_of
from revbench.report.steps import cell
from revbench.titles import circumstances, strategy_of, title_of
from revbench.units import human_seconds

ENOUGH_SEEDS = 5  # for a claim that two errors are the same
MARGIN = 0.01  # of validation error: less than this is called the same


def training_figures(evidence: Evidence) -> list[Figure]:
    """For each trained pair, of its first seed: the gradient's angle where it was measured, cross-entropy, and error
    (training dotted, validation solid); the nulls' spread shaded. Figures 3 and 4 of the paper.
    """
    found = []
    seeds: dict[Case, int] = {}
    for case in evidence.cases("training"):
        seeds.setdefault(_without_seed(case), case.seed)
    for group in paired(
        case.replace(ulp=0) for case in evidence.cases("training") if seeds[_without_seed(case)] == case.seed
    ):
        members = [(case, evidence.series(case, "training")) for case in dict.fromkeys(group)]
        members = [(case, columns) for case, columns in members if _can_be_drawn(columns)]
        if members:
            nulls = [
                (case, columns)
                for case in evidence.cases("training")
                if case.ulp and case.replace(ulp=0) in [member for member, _ in members]
                if _can_be_drawn(columns := evidence.series(case, "training"))
            ]
            found.append(_curves(evidence, members, nulls))
    return found


def _without_seed(case: Case) -> Case:
    return case.replace(seed=0, ulp=0)


def _can_be_drawn(columns: Mapping[str, Sequence[Any]]) -> bool:
    return {"step", "loss", "error", "validation_error"} <= columns.keys() and len(columns["step"]) > 0


Member = tuple[Case, dict[str, list[Any]]]


def _curves(evidence: Evidence, members: Sequence[Member], nulls: Sequence[Member]) -> Figure:
    twins = {case.replace(ulp=0) for case, _ in nulls}
    spread = [columns for case, columns in (*members, *nulls) if case.replace(ulp=0) in twins]
    window = max(len(members[0][1]["step"]) // 20, 1)
    angles = [(case, columns) for case, columns in members if any(v for v in columns.get("angle_degrees", ()))]
    with canvas(12.0 if angles else 9.6, 3.6, 3 if angles else 2) as (figure, axes):
        left, right = axes[-2:]
        for case, columns in angles:
            values = _column(columns, "angle_degrees")
            at = ~np.isnan(values) & (values > 0)
            axes[0].plot(
                _column(columns, "step")[at], values[at], "-o", color=_colour(case), linewidth=1.2, markersize=2.5
            )
            axes[0].set(title="Angle to the float64 gradient", xlabel="step", ylabel="degrees", yscale="log")
        for case, columns in members:
            label = f"{title_of(case.model)} {case.strategy}".replace("$", r"\$")
            steps, colour = _column(columns, "step"), _colour(case)
            left.plot(steps, _smooth(_column(columns, "loss"), window), color=colour, linewidth=1.4, label=label)
            right.plot(steps, _smooth(_column(columns, "error"), window) * 100, ":", color=colour, linewidth=1.3)
            validation = _column(columns, "validation_error") * 100
            at = ~np.isnan(validation)
            right.plot(steps[at], validation[at], "-o", color=colour, linewidth=1.4, markersize=3.5, label=label)
        if len(spread) > 1:
            _shade(left, spread, "loss", 1.0)
            _shade(right, spread, "error", 100.0)
        left.set(title="Training cross-entropy", xlabel="step", ylabel="nats")
        right.set(title="Error, dotted training, solid validation", xlabel="step", ylabel="%", ylim=(0, 100))
        left.legend(loc="best")
        svg = svg_of(figure)
    first = members[0][0]
    names = " and ".join(dict.fromkeys(title_of(c.model) for c, _ in members))
    window_words = f" Training curves are running means over {window} steps." if window > 1 else ""
    null_words = (
        f" Shaded: the spread of the stored RevNet and {len(nulls)} null run{'s' if len(nulls) > 1 else ''}"
        " that differ from it by one unit in the last place of one weight."
    )
    note = f"{first.data}, {circumstances(first)}.{window_words}{null_words if len(spread) > 1 else ''}"
    alternative = "; ".join(
        f"{title_of(c.model)} {c.strategy} ends at validation error {s.median:.1%}"
        for c, _ in members
        if (s := evidence.value(c, "training", "validation_error"))
    )
    return Figure(f"Training curves: {names} on {first.data}", "training", svg, alternative, (note,))


def _colour(case: Case) -> Any:
    return RESNET_COLOUR if is_resnet(case) else COLOURS[case.strategy]


def _column(columns: dict[str, list[Any]], name: str) -> Array:
    return np.asarray([np.nan if value is None else value for value in columns[name]], dtype=np.float64)


def _smooth(values: Array, window: int) -> Array:
    """The mean of the last `window` values, of fewer at the beginning."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - window, 0)
    smoothed: Array = (total[index] - total[first]) / (index - first)
    return smoothed


def _shade(axes: Any, members: Sequence[dict[str, list[Any]]], name: str, factor: float) -> None:
    window = max(len(members[0]["step"]) // 20, 1)
    length = min(len(columns["step"]) for columns in members)
    curves = np.stack([_smooth(_column(columns, name), window)[:length] for columns in members]) * factor
    axes.fill_between(
        _column(members[0], "step")[:length],
        curves.min(0),
        curves.max(0),
        color=COLOURS["stored"],
        alpha=0.25,
        linewidth=0,
    )


def training_table(evidence: Evidence) -> Table | None:
    """Where each training run ended."""
    cases = evidence.cases("training")
    if not cases:
        return None
    rows = []
    for case in cases:
        strategy = strategy_of(case) + (f", null {case.ulp}" if case.ulp else "")
        percent: Callable[[float], str] = lambda v: f"{v:.1%}"  # noqa: E731
        rows.append(
            [
                title_of(case.model), strategy, case.data, _images(evidence, case), str(case.batch_size),
                str(case.training_steps),
                evidence.failure(case, "training") or cell(evidence, case, "training", "train_loss", lambda v: f"{v:.3f}"),
                cell(evidence, case, "training", "train_error", percent),
                cell(evidence, case, "training", "validation_error", percent),
                cell(evidence, case, "training", "step_seconds", human_seconds),
                cell(evidence, case, "training", "waiting_share", percent),
            ]
        )  # fmt: skip
    notes = [
        "Training figures are means over the last tenth of the steps. Waiting: the share of the time that went into getting"
        " batches. A null is the stored RevNet with one weight moved by one unit in the last place: what lies within its spread"
        " is not a difference of strategy.",
    ]
    columns = (
        "Network",
        "Strategy",
        "Data",
        "Images",
        "Batch",
        "Steps",
        "Training loss",
        "Training error",
        "Validation error",
        "Step",
        "Waiting",
    )
    return Table("Where each training run ended", columns, rows, 3, notes)


def _images(evidence: Evidence, case: Case) -> str:
    """How many training images of how many, and how many for validation."""
    names = ("train_images", "train_images_available", "validation_images")
    used, there, held_out = (evidence.value(case, "training", name) for name in names)
    if used is None or there is None or held_out is None:
        return MISSING
    of = f" of {there.median:,.0f}" if there.median != used.median else ""
    return f"{used.median:,.0f}{of}, {held_out.median:,.0f} to validate"


def errors_table(evidence: Evidence) -> Table | None:
    """Tables 3 and 4 of the paper, and our errors beside them, a column for each data set."""
    ended: dict[tuple[str, str, str], list[float]] = {}
    steps: dict[str, set[int]] = {}
    for case in evidence.cases("training"):
        if case.model in CATALOGUE and not case.ulp and (found := evidence.value(case, "training", "validation_error")):
            ended.setdefault((case.model, case.data, case.strategy), []).append(found.median)
            steps.setdefault(case.data, set()).add(case.training_steps)
    if not ended:
        return None
    published = ("CIFAR-10", "CIFAR-100", "ImageNet")
    ours = list(dict.fromkeys((data, strategy) for _, data, strategy in ended))
    rows = []
    for model in CATALOGUE:
        if model in paper.ERRORS or any(trained == model for trained, *_ in ended):
            printed = paper.ERRORS.get(model, {})
            values = [ended.get((model, *column)) for column in ours]
            rows.append(
                [
                    title_of(model), *(printed.get(data, MISSING) for data in published),
                    *(f"{100 * statistics.fmean(v):.2f}" if v else MISSING for v in values),
                ]
            )  # fmt: skip
    lengths = "; ".join(
        f"{data}: {' or '.join(f'{n:,}' for n in sorted(found))} steps" for data, found in steps.items()
    )
    notes = [
        f"Paper: Tables 3 and 4 of {paper.GOMEZ_2017} (CIFAR after 80,000 steps, ImageNet top-1 after 600,000, single"
        f" crop). Ours: validation error at the end, mean over seeds, in columns of their own ({lengths}):"
        " other data, or fewer steps, are not the paper's figure."
    ]
    columns = (
        "Network",
        *(f"{data}, paper" for data in published),
        *(f"{data}, {strategy}" for data, strategy in ours),
    )
    return Table("Classification error, % (Tables 3 and 4)", columns, rows, 1, notes)


def equivalence_table(evidence: Evidence) -> Table | None:
    """Whether stored and reconstructed end at the same error: an equivalence test over seeds, or why there is none."""
    groups: dict[Case, dict[int, dict[str, float]]] = {}
    for case in evidence.cases("training"):
        of_a_pair = case.ulp == 0 and not is_resnet(case) and case.strategy in ("stored", "reconstructed")
        if of_a_pair and (found := evidence.value(case, "training", "validation_error")):
            by_seed = groups.setdefault(case.stored().replace(seed=0), {})
            by_seed.setdefault(case.seed, {})[case.strategy] = found.median
    rows = []
    for case, by_seed in groups.items():
        differences = [e["reconstructed"] - e["stored"] for e in by_seed.values() if len(e) == 2]
        if differences:
            rows.append([title_of(case.model), case.data, str(len(differences)), *equivalence(differences)])
    if not rows:
        return None
    notes = [
        "Reconstructed minus stored, seed by seed, in points of validation error. Same: both one-sided t-tests of a difference"
        f" beyond ± {100 * MARGIN:.0f} point reject at 5 % (Schuirmann 1987), from {ENOUGH_SEEDS} seeds on. Anything else is"
        " no claim, either way."
    ]
    columns = ("Network", "Data", "Seeds", "Mean difference", "90 % interval", "Same error?")
    return Table("Do stored and reconstructed end at the same error?", columns, rows, 2, notes)


def equivalence(differences: Sequence[float]) -> tuple[str, str, str]:
    """Mean, interval and verdict of paired differences."""
    mean = statistics.fmean(differences)
    shown = f"{100 * mean:+.2f}"
    if len(differences) < 2:
        return shown, MISSING, f"not tested: at least {ENOUGH_SEEDS} seeds"
    error = statistics.stdev(differences) / len(differences) ** 0.5
    half = float(stats.t.ppf(0.95, len(differences) - 1)) * error
    interval = f"{100 * (mean - half):+.2f} to {100 * (mean + half):+.2f}"
    if len(differences) < ENOUGH_SEEDS:
        return shown, interval, f"not tested: at least {ENOUGH_SEEDS} seeds"
    return shown, interval, "yes" if mean - half > -MARGIN and mean + half < MARGIN else "not shown"
