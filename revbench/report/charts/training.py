"""The curves of trainings: Figures 3 and 4 of Gomez et al. 2017, for whichever networks and data were trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from revbench.case import Case
from revbench.case.labels import circumstances, network_name
from revbench.case.pairs import is_ordinary, paired
from revbench.report.charts.canvas import Array, canvas, dots, svg_of, with_tip
from revbench.report.charts.plotting import Line2D
from revbench.report.colours import ORDINARY, STRATEGIES, Look, look_of
from revbench.report.document import Figure, name_of
from revbench.report.evidence import Evidence
from revbench.training.declared import TRAINING
from revbench.units import human_degrees

Member = tuple[Case, dict[str, list[Any]]]


def training_figures(evidence: Evidence) -> Iterator[Figure]:
    """Draws for each pair that was trained, of its first seed, the curves of ResNet and RevNet (Figure 3 of the paper); the angle
    of the RevNet's gradient, cross-entropy and error, stored against reconstructed (Figure 4). The nulls' spread is shaded.
    """
    trained = evidence.cases(TRAINING)
    first_seed: dict[Case, int] = {}
    for case in trained:
        first_seed.setdefault(case.replace(seed=0, ulp=0), case.seed)
    shown = [case for case in trained if first_seed[case.replace(seed=0, ulp=0)] == case.seed]
    for group in paired(case for case in shown if not case.ulp):
        members = _drawable(evidence, group)
        nulls = _drawable(evidence, [case for case in shown if case.ulp and case.replace(ulp=0) in group])
        resnets = [member for member in members if is_ordinary(member[0])]
        others = [member for member in members if not is_ordinary(member[0])]
        if resnets:
            reconstructed = [member for member in others if member[0].strategy != "stored"]
            yield _curves(evidence, [*resnets, *(reconstructed or others)], nulls, 3)
        if others:
            yield _curves(evidence, others, nulls, 4)


def _drawable(evidence: Evidence, cases: Sequence[Case]) -> list[Member]:
    members = [(case, evidence.series(case, TRAINING)) for case in cases]
    return [(case, columns) for case, columns in members if _can_be_drawn(columns)]


def _can_be_drawn(columns: Mapping[str, Sequence[Any]]) -> bool:
    return {"step", "loss", "error", "validation_error"} <= columns.keys() and len(columns["step"]) > 0


def _curves(evidence: Evidence, members: Sequence[Member], nulls: Sequence[Member], number: int) -> Figure:
    """Returns one row of panels; `number` is that of the paper's figure."""
    origins = {case.replace(ulp=0) for case, _ in nulls}
    stored = [(case, evidence.series(case, TRAINING)) for case in origins]
    spread = [columns for _, columns in (*stored, *nulls) if _can_be_drawn(columns)]
    window = max(len(members[0][1]["step"]) // 20, 1)
    angles = [member for member in members if any(member[1].get("angle_degrees", ()))] if number == 4 else []
    with canvas(2.8, 3 if angles else 2) as (figure, axes):
        left, right = axes[-2:]
        if angles:
            _draw_angles(axes[0], angles)
        for case, columns in members:
            label = f"{network_name(case)} {case.strategy}"
            steps, look = _column(columns, "step"), _look(case)
            curve = left.plot(
                steps, running_means(_column(columns, "loss"), window), color=look.colour, linestyle=look.dashes, linewidth=1.4,
                label=label,
            )  # fmt: skip
            with_tip(curve, label)
            right.plot(
                steps, running_means(_column(columns, "error"), window) * 100, ":", color=look.colour, linewidth=1.3
            )
            validation = _column(columns, "validation_error") * 100
            at = ~np.isnan(validation)
            words = [
                f"{label}, step {step:.0f}: {error:.1f} %"
                for step, error in zip(steps[at], validation[at], strict=True)
            ]
            dots(right, steps[at], validation[at], look, words, markersize=4)
            right.plot(steps[at], validation[at], color=look.colour, linestyle=look.dashes, linewidth=1.4)
        if len(spread) > 1:
            _shade(left, spread, "loss", 1.0, window)
            _shade(right, spread, "error", 100.0, window)
            _shade(right, spread, "validation_error", 100.0, 1)
        left.set(title="Training cross-entropy", xlabel="step", ylabel="nats", ylim=(0, 1.04 * left.get_ylim()[1]))
        right.set(title="Error (dotted: training)", xlabel="step", ylabel="%", ylim=(0, 100))
        handles, labels = left.get_legend_handles_labels()
        if len(spread) > 1:
            handles.append(Line2D([], [], color=STRATEGIES["stored"].colour, alpha=0.25, linewidth=7))
            labels.append("spread of the nulls")
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        svg = svg_of(figure)
    first = members[0][0]
    names = " and ".join(dict.fromkeys(network_name(case) for case, _ in members))
    what = names if number == 3 else f"{names}, {' and '.join(dict.fromkeys(case.strategy for case, _ in members))}"
    notes = [f"{first.data}, {circumstances(first)}. As Figure {number} of the paper."]
    seeds = {case.seed for case in evidence.cases(TRAINING) if case.replace(seed=0) == first.replace(seed=0)}
    if len(seeds) > 1:
        notes.append(f"The first of {len(seeds)} seeds.")
    if window > 1:
        notes.append(f"Training curves are running means over {window} steps.")
    if angles:
        notes.append(
            "Angle: to the gradient of stored in float64 with the same weights, of part of the batch; dotted: the most that"
            " rounding alone can make of it, so that what stands above are flipped ReLU units."
        )
    if len(spread) > 1:
        twins = f"{len(nulls)} null run{'s' if len(nulls) > 1 else ''}"
        notes.append(
            f"Shaded: the spread of the reversible network under stored and {twins} that"
            f" differ{'' if len(nulls) > 1 else 's'} from it by one unit"
            " in the last place of one weight; a difference within it is none of the strategy, and one beyond so few runs shows"
            " nothing yet."
        )
    alternative = "; ".join(
        f"{network_name(case)} {case.strategy} ends at validation error {error.median:.1%}"
        for case, _ in members
        if (error := evidence.value(case, TRAINING["validation_error"]))
    )
    return Figure(
        f"Training curves: {what} on {first.data}",
        name_of(f"training {what} {first.data}"),
        svg,
        alternative,
        (" ".join(notes),),
    )


def _draw_angles(axes: Any, members: Sequence[Member]) -> None:
    for case, columns in members:
        values = _column(columns, "angle_degrees")
        at = ~np.isnan(values) & (values > 0)
        steps, look = _column(columns, "step")[at], _look(case)
        axes.plot(steps, values[at], color=look.colour, linestyle=look.dashes, linewidth=1.2)
        words = [
            f"{network_name(case)} {case.strategy}, step {step:.0f}: {human_degrees(angle)}"
            for step, angle in zip(steps, values[at], strict=True)
        ]
        dots(axes, steps, values[at], look, words, markersize=2.5)
        if "smooth_relative_error" in columns:  # sin of the largest angle between g and g + e is |e| / |g|
            smooth = np.degrees(np.arcsin(np.clip(_column(columns, "smooth_relative_error")[at], 0, 1)))
            axes.plot(steps, smooth, ":", color=look.colour, linewidth=1.2)
    axes.set(title="Angle to float64", xlabel="step", ylabel="degrees", yscale="log")


def _look(case: Case) -> Look:
    return ORDINARY if is_ordinary(case) else look_of(case)


def _column(columns: dict[str, list[Any]], name: str) -> Array:
    return np.asarray([np.nan if value is None else value for value in columns[name]], dtype=np.float64)


def running_means(values: Array, window: int) -> Array:
    """Returns the mean of the finite ones of the last `window` values, of fewer at the beginning; NaN where there is none."""
    there = np.isfinite(values)
    total = np.insert(np.cumsum(np.where(there, values, 0.0)), 0, 0.0)
    count = np.insert(np.cumsum(there), 0, 0)
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - window, 0)
    counted = count[index] - count[first]
    return np.where(counted > 0, (total[index] - total[first]) / np.maximum(counted, 1), np.nan)


def _shade(axes: Any, members: Sequence[dict[str, list[Any]]], name: str, factor: float, window: int) -> None:
    length = min(len(columns["step"]) for columns in members)
    curves = np.stack([running_means(_column(columns, name), window)[:length] for columns in members]) * factor
    at = ~np.isnan(curves).any(0)  # validation has figures at some steps only
    steps, curves = _column(members[0], "step")[:length][at], curves[:, at]
    axes.fill_between(steps, curves.min(0), curves.max(0), color=STRATEGIES["stored"].colour, alpha=0.25, linewidth=0)
