"""Pictures of drift: against depth, its two parts against each other, and block by block on the way back."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.numerics.part_table import PartTable
from revbench.numerics.statistics import QUANTILE_DRAWS, summarise_draws
from revbench.probes.declared import DRIFT, LIPSCHITZ
from revbench.report.charts.canvas import canvas, dots, svg_of, with_tip
from revbench.report.colours import INK, SOFT, Look, look_of_arithmetic
from revbench.report.document import Figure, name_of
from revbench.report.evidence import Evidence
from revbench.units import human_degrees

_EPSILONS = 2.0**29  # float32's over float64's

Points = dict[int, Case]


def drift_depth_figures(evidence: Evidence) -> list[Figure]:
    """Draws angle, smooth part and flips against depth, and what float32 has more than float64."""
    found = [_depth_figure(evidence), _ratio_figure(evidence)]
    return [figure for figure in found if figure is not None]


def _depths(evidence: Evidence) -> dict[str, Points]:
    """Returns measured chains by arithmetic and number of blocks."""
    found: dict[str, Points] = {}
    for case in evidence.cases(DRIFT):
        chain = Chain.of(case)
        if chain is None or chain.names_library or chain.blocks is None or case.strategy != "reconstructed":
            continue
        if evidence.launches(case, DRIFT):
            found.setdefault(case.arithmetic.name, {})[chain.blocks] = case
    return {arithmetic: dict(sorted(points.items())) for arithmetic, points in found.items() if len(points) >= 2}


def _depth_figure(evidence: Evidence) -> Figure | None:
    by_arithmetic = _depths(evidence)
    if not by_arithmetic:
        return None
    said = []
    panels = (
        ("angle_degrees", "stored_angle_degrees", "Angle to float64", "degrees"),
        ("smooth_error_epsilons", "smooth_stored_relative_error", "Smooth error", "ε of the arithmetic"),
        ("flips", "stored_flips", "Flips", "units"),
    )
    with canvas(2.9, 3) as (figure, axes):
        for panel, (name, of_stored, title, unit) in zip(axes, panels, strict=True):
            for arithmetic, points in by_arithmetic.items():
                look = look_of_arithmetic(arithmetic)
                _line(panel, evidence, points, name, look, arithmetic)
                scale = 1.0
                if of_stored == "smooth_stored_relative_error":
                    scale = _epsilon_scale(evidence, points)
                _line(panel, evidence, points, of_stored, look, arithmetic, stored=True, scale=scale)
            panel.set(title=title, xlabel="blocks", ylabel=unit, xscale="log")
            if name == "flips":
                panel.set_yscale("symlog", linthresh=1)
                panel.set_ylim(bottom=0, top=2 * panel.get_ylim()[1])
            else:
                panel.set_yscale("log")
            ticks = sorted({blocks for points in by_arithmetic.values() for blocks in points})
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.minorticks_off()
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
        svg = svg_of(figure)
    for arithmetic, points in by_arithmetic.items():
        deepest = max(points)
        values = evidence.samples(points[deepest], DRIFT["angle_degrees"])
        if values:
            said.append(f"{arithmetic} at {deepest} blocks {human_degrees(statistics.median(values))}")
    first = next(iter(next(iter(by_arithmetic.values())).values()))
    note = (
        f"Chains of basic blocks, {circumstances(first, dtype=False)}. Solid: reconstructed; dotted: stored in the same"
        " arithmetic (none in float64, where it is the reference). Medians over draws, bars from 5 % to"
        f" 95 % (below {QUANTILE_DRAWS} draws from the smallest to the largest)."
    )
    return Figure("Drift against depth", "drift-against-depth", svg, f"Angles: {'; '.join(said)}.", (note,))


def _epsilon_scale(evidence: Evidence, points: Points) -> float:
    """Returns what turns this arithmetic's relative errors into epsilons, as its own rows have it."""
    for case in points.values():
        errors = evidence.samples(case, DRIFT["smooth_relative_error"])
        counted = evidence.samples(case, DRIFT["smooth_error_epsilons"])
        if errors and counted and errors[0] > 0:
            return counted[0] / errors[0]
    return math.nan


def _line(
    axes: Any, evidence: Evidence, points: Points, metric: str, look: Look, arithmetic: str, *,
    stored: bool = False, scale: float = 1.0,
) -> None:  # fmt: skip
    found = [(blocks, summarise_draws(evidence.samples(case, DRIFT[metric]))) for blocks, case in points.items()]
    whole = [(blocks, s) for blocks, s in found if s is not None and (s.median > 0 or metric.endswith("flips"))]
    if stored and all(s.median == 0 for _, s in whole):
        return  # float64's stored is the reference: it has no error to draw
    if not whole:
        return
    middle = np.asarray([s.median for _, s in whole]) * scale
    low = np.asarray([s.smallest if s.q05 is None else s.q05 for _, s in whole]) * scale
    high = np.asarray([s.largest if s.q95 is None else s.q95 for _, s in whole]) * scale
    depths = [blocks for blocks, _ in whole]
    axes.errorbar(
        depths, middle, yerr=[np.maximum(middle - low, 0), np.maximum(high - middle, 0)],
        linestyle=":" if stored else "-", color=look.colour, linewidth=1.3, elinewidth=0.8,
    )  # fmt: skip
    what = f"{arithmetic} {'stored' if stored else 'reconstructed'}"
    words = [
        f"{what}, {blocks} blocks: {value:.3g} ({least:.3g} to {most:.3g})"
        for blocks, value, least, most in zip(depths, middle, low, high, strict=True)
    ]
    dots(axes, depths, middle, look, words, markersize=4.5, markerfacecolor="none" if stored else None)
    if not stored:
        axes.plot(
            [], [], look.marker, linestyle="-", color=look.colour, markersize=4.5, linewidth=1.3, label=arithmetic
        )


def _ratio_figure(evidence: Evidence) -> Figure | None:
    """Returns the error of float32 over that of float64, whole and smooth: only the latter follows epsilon."""
    by_arithmetic = _depths(evidence)
    narrow, wide = by_arithmetic.get("float32", {}), by_arithmetic.get("float64", {})
    depths = sorted(narrow.keys() & wide.keys())
    ratios: dict[str, list[tuple[int, list[float]]]] = {"relative_error": [], "smooth_relative_error": []}
    for metric, found in ratios.items():
        for blocks in depths:
            ours = evidence.samples(narrow[blocks], DRIFT[metric])
            theirs = evidence.samples(wide[blocks], DRIFT[metric])
            if len(ours) == len(theirs) > 0 and min(theirs) > 0:
                found.append((blocks, [a / b for a, b in zip(ours, theirs, strict=True)]))
    if not all(ratios.values()):
        return None
    said = []
    with canvas(2.7) as (figure, axes):
        axes.axhline(_EPSILONS, color=INK, linewidth=0.9, linestyle=":", label="ε of float32 / ε of float64 = 2²⁹")
        kinds = (("whole error, flips and all", INK, "^", "-", 0.97), ("smooth error", SOFT, "o", "--", 1.03))
        for found, (label, colour, marker, dashes, shift) in zip(ratios.values(), kinds, strict=True):
            for blocks, values in found:
                drawn = axes.plot(
                    [blocks * shift] * len(values), values, marker, color=colour, markersize=3.5, alpha=0.45
                )
                middle = f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
                with_tip(drawn, f"{label}, {blocks} blocks: {middle} over {len(values)} draws")
            medians = [statistics.median(values) for _, values in found]
            axes.plot(
                [b * shift for b, _ in found], medians, dashes, color=colour, linewidth=1.4
            )  # fmt: skip
            axes.plot([], [], marker, linestyle=dashes, color=colour, markersize=4, label=f"{label} (line: median)")
            said.append(
                f"{label}: {', '.join(f'{b} blocks {m:.1e}' for (b, _), m in zip(found, medians, strict=True))}"
            )
        axes.set(xscale="log", yscale="log", xlabel="blocks", ylabel="float32's error over float64's")
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.minorticks_off()
        axes.legend(loc="best")
        svg = svg_of(figure)
    note = (
        f"The reconstructed gradient's relative error in float32 over that in float64, the same weights and batches, a dot a"
        f" draw. Chains of basic blocks, {circumstances(narrow[depths[0]], dtype=False)}."
    )
    return Figure("Rounding follows ε, flips do not", "drift-and-epsilon", svg, f"{'; '.join(said)}.", (note,))


def going_back_figures(evidence: Evidence) -> Iterator[Figure]:
    """Returns the activations' error block by block on the way back: the first network of the catalogue, and the deepest
    chain."""
    groups: dict[Case, list[Case]] = {}
    for case in evidence.cases(DRIFT):
        if case.strategy == "reconstructed" and evidence.launches(case, DRIFT):
            plain = case.in_float32()
            groups.setdefault(plain, []).append(case)
    predicted = [plain for plain, cases in groups.items() if any(evidence.launches(c, LIPSCHITZ) for c in cases)]
    networks = [plain for plain in predicted if Chain.of(plain) is None]
    chains = [(chain.blocks, plain) for plain in predicted if (chain := Chain.of(plain)) is not None and chain.blocks]
    chains.sort(key=lambda pair: pair[0])
    for plain in (*networks, *(plain for _, plain in chains[-1:])):
        if (figure := _going_back(evidence, plain, groups[plain])) is not None:
            yield figure


def _going_back(evidence: Evidence, plain: Case, cases: Sequence[Case]) -> Figure | None:
    said = []
    drawn = 0
    with canvas(2.8) as (figure, axes):
        for case in cases:
            parts = PartTable(evidence.series(case, DRIFT))
            names = [str(name) for (name,) in parts.blocks()]
            errors = np.asarray(parts.numbers_of_blocks("activation_error"), dtype=np.float64)
            if not names or not (errors > 0).any():
                continue
            name = case.arithmetic.name
            look = look_of_arithmetic(name)
            colour = look.colour
            inside = ~np.isnan(errors)
            first, last = np.flatnonzero(inside)[[0, -1]]
            at = np.arange(len(names))[first : last + 1]
            axes.plot(at, errors[at], color=colour, linewidth=1.3)
            axes.plot([], [], marker=look.marker, color=colour, markersize=4, linewidth=1.3, label=name)
            low, high = (
                np.asarray(parts.numbers_of_blocks(f"activation_error_{key}"), dtype=np.float64)[at]
                for key in ("low", "high")
            )
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
            forecast = dict(PartTable(evidence.series(case, LIPSCHITZ)).blocks("predicted_activation_error"))
            slope = np.asarray([forecast.get(names[i], np.nan) for i in at], dtype=np.float64)
            if not np.isnan(slope).all():
                axes.plot(at, slope, "--", color=colour, linewidth=1.1)
            words = [
                f"{name}, {names[i]}: {errors[i]:.2g}{f', predicted {one:.2g}' if np.isfinite(one) else ''}"
                for i, one in zip(at, slope, strict=True)
            ]
            dots(axes, at, errors[at], look, words, markersize=4)
            said.append(f"{name} from {errors[inside][-1]:.1e} to {errors[inside].max():.1e}")
            drawn += 1
            step = max(len(at) // 12, 1)
            axes.set_xticks(at[::-1][::step], [_label(names[i]) for i in at[::-1][::step]])
        if not drawn:
            return None
        axes.set(yscale="log", xlabel="block that the activations enter, on the way back", ylabel="relative error, RMS")
        axes.invert_xaxis()
        axes.plot([], [], "--", color=SOFT, linewidth=1.1, label="predicted")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        svg = svg_of(figure)
    note = (
        f"{network_name(plain)} {strategy_of(plain)}, {circumstances(plain, dtype=False)}. Reconstructed against the forward"
        " pass's own; shaded: smallest to largest draw. Predicted: from the growth of errors by F and G and from their rounding"
        " alone, nothing fitted. Where a line is broken, a unit that can't be inverted keeps its input and the error begins anew."
    )
    title = f"Error of the activations on the way back: {network_name(plain)}"
    return Figure(title, name_of(f"drift-on-the-way-back {network_name(plain)}"), svg, f"{'; '.join(said)}.", (note,))


def _label(name: str) -> str:
    return name.rpartition(".")[2][:12]
