"""Peak memory against depth, and the form in which it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import circumstances, strategy_of
from revbench.probes.declared import FLOPS_OF_STEP, MEMORY
from revbench.report.charts.canvas import Array, canvas, dots, svg_of
from revbench.report.charts.plotting import LogLocator
from revbench.report.colours import look_of
from revbench.report.document import Figure
from revbench.report.evidence import Evidence
from revbench.units import human_bytes

FORMS: Mapping[str, Callable[[float], float]] = {
    "⌈log2 L⌉": lambda depth: float(math.ceil(math.log2(depth))),
    "√L": math.sqrt,
    "L": float,
}
FLAT = 0.1  # what grows less than this share of itself over all depths is called constant


@dataclass(frozen=True)
class Growth:
    """A fit ``base + slope form(L)`` by least squares.

    Attributes:
        form: the name of one of `FORMS`, that which leaves the smallest residual; ``1`` if hardly anything grows.
        base, slope: in bytes.
        residual: root mean square of what the fit leaves, as a share of the mean.
    """

    form: str
    base: float
    slope: float
    residual: float

    def at(self, depth: float) -> float:
        """Returns the fitted bytes."""
        return self.base + (0.0 if self.form == "1" else self.slope * FORMS[self.form](depth))

    def __str__(self) -> str:
        if self.form == "1":
            return human_bytes(self.base)
        sign = "+" if self.slope >= 0 else "-"
        return f"{human_bytes(self.base)} {sign} {human_bytes(abs(self.slope))} · {self.form}"


def fit_growth(depths: Array, peaks: Array) -> Growth:
    """Find the form in which peaks grow with depth; three depths at least."""
    if peaks.max() - peaks.min() <= FLAT * peaks.min():
        return Growth("1", float(peaks.mean()), 0.0, float(peaks.std() / peaks.mean()))
    found = []
    for form, function in FORMS.items():
        design = np.stack([np.ones_like(depths), [function(depth) for depth in depths]], 1)
        (base, slope), *_ = np.linalg.lstsq(design, peaks, rcond=None)
        left = peaks - design @ (base, slope)
        found.append(Growth(form, float(base), float(slope), float(np.sqrt((left**2).mean()) / peaks.mean())))
    return min(found, key=lambda growth: growth.residual)


def peaks_by_depth(evidence: Evidence) -> dict[Case, tuple[Array, Array]]:
    """Depths and peaks above the steady state, by the case without its depth."""
    found: dict[Case, dict[int, float]] = {}
    for case in evidence.cases(MEMORY):
        chain = Chain.of(case)
        if chain is not None and not chain.names_library and chain.blocks is not None:
            peak = evidence.value(case, MEMORY["activation_peak_without_gradients_bytes"])
            if peak is not None:
                found.setdefault(case.replace(model=chain.family()), {})[chain.blocks] = peak.median
    columns = {}
    for case, peaks in found.items():
        if len(peaks) >= 3:
            depths = sorted(peaks)
            columns[case] = np.asarray(depths, dtype=np.float64), np.asarray([peaks[depth] for depth in depths])
    return columns


def operations_by_depth(evidence: Evidence) -> dict[Case, dict[int, float]]:
    """Operations of a step over those of stored at the same depth, by the case without its depth."""
    found: dict[Case, dict[int, float]] = {}
    for case in evidence.cases(FLOPS_OF_STEP):
        chain = Chain.of(case)
        if chain is not None and not chain.names_library and chain.blocks is not None:
            ratio = evidence.ratio(case, case.stored(), FLOPS_OF_STEP["step_flops"])
            if ratio is not None:
                found.setdefault(case.replace(model=chain.family()), {})[chain.blocks] = ratio
    return found


def _kinds(measured: Mapping[Case, object]) -> str:
    chains = (Chain.of(case) for case in measured)
    return " and ".join(dict.fromkeys((chain.kind if chain is not None else None) or "basic" for chain in chains))


def depth_figure(evidence: Evidence) -> Figure | None:
    """Peak memory against depth, one line a strategy, with the fitted growth."""
    measured = peaks_by_depth(evidence)
    if not measured:
        return None
    said = []
    with canvas(2.9) as (figure, axes):
        for case, (depths, peaks) in measured.items():
            growth = fit_growth(depths, peaks)
            label = f"{strategy_of(case)}, {'constant' if growth.form == '1' else growth.form}"
            smooth = np.geomspace(depths.min(), depths.max(), 100)
            look, fitted = look_of(case), [growth.at(x) / 2**20 for x in smooth]
            axes.plot(smooth, fitted, linestyle=look.dashes, color=look.colour, linewidth=1.3)
            axes.plot([], [], look.marker, linestyle=look.dashes, color=look.colour, label=label)
            words = [
                f"{strategy_of(case)}, {depth:.0f} blocks: {human_bytes(peak)}"
                for depth, peak in zip(depths, peaks, strict=True)
            ]
            dots(axes, depths, peaks / 2**20, look, words, markersize=5.5)
            said.append(f"{label} from {human_bytes(peaks[0])} to {human_bytes(peaks[-1])}")
        ticks = next(iter(measured.values()))[0]
        axes.set(xscale="log", yscale="log", xlabel="blocks, L", ylabel="peak of activations, MiB")
        axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.minorticks_off()
        axes.legend(
            title="measured (dots), fitted (lines)",
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            alignment="left",
        )
        svg = svg_of(figure)
    note = (
        f"A chain of L {_kinds(measured)} blocks at 32×32, {circumstances(next(iter(measured)))}. Live tensors above the"
        " steady state, without the parameters' gradients."
    )
    return Figure("Peak memory against depth", "depth", svg, f"{'; '.join(said)}.", (note,))
