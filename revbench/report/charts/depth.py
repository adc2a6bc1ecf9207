"""Peak memory against depth, and the form in which it grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import circumstances, strategy_of, title_of
from revbench.probes.declared import FLOPS_OF_STEP, MEMORY
from revbench.report.charts.canvas import Array, canvas, dots, svg_of
from revbench.report.charts.plotting import LogLocator
from revbench.report.colours import look_of
from revbench.report.document import Figure, name_of
from revbench.report.evidence import LEAST_DEPTHS, Evidence
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
        family = family_and_depth(case)
        peak = evidence.value(case, MEMORY["activation_peak_without_gradients_bytes"])
        if family is not None and peak is not None:
            found.setdefault(family[0], {})[family[1]] = peak.median
    columns = {}
    for case, peaks in found.items():
        if len(peaks) >= LEAST_DEPTHS:
            depths = sorted(peaks)
            columns[case] = np.asarray(depths, dtype=np.float64), np.asarray([peaks[depth] for depth in depths])
    return columns


def operations_by_depth(evidence: Evidence) -> dict[Case, dict[int, float]]:
    """Operations of a step over those of stored at the same depth, by the case without its depth."""
    found: dict[Case, dict[int, float]] = {}
    for case in evidence.cases(FLOPS_OF_STEP):
        family = family_and_depth(case)
        ratio = evidence.ratio(case, case.stored(), FLOPS_OF_STEP["step_flops"])
        if family is not None and ratio is not None:
            found.setdefault(family[0], {})[family[1]] = ratio
    return found


def family_and_depth(case: Case) -> tuple[Case, int] | None:
    """Returns a case without its depth, and that; None of a case that does not say how deep it is, runs under a memory limit, or
    is of those by which libraries are compared."""
    chain = Chain.of(case)
    if chain is not None and not chain.names_library and chain.blocks is not None:
        return case.replace(model=chain.family()), chain.blocks
    return None if case.depth is None or case.memory_limit_bytes else (case.replace(depth=None), case.depth)


def family_name(case: Case) -> str:
    """Returns what such a case is of, in words."""
    chain = Chain.of(case)
    return title_of(case.model) if chain is None else f"{chain.kind or 'basic'} blocks"


def depth_figures(evidence: Evidence) -> Iterator[Figure]:
    """Draws for each family of networks peak memory against depth, one line a strategy, with the fitted growth."""
    families: dict[str, dict[Case, tuple[Array, Array]]] = {}
    for case, columns in peaks_by_depth(evidence).items():
        families.setdefault(family_name(case), {})[case] = columns
    for name, measured in families.items():
        yield _figure(name, measured)


def _figure(name: str, measured: Mapping[Case, tuple[Array, Array]]) -> Figure:
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
    is_chain = Chain.of(next(iter(measured))) is not None
    what = f"A chain of L {name} at 32×32" if is_chain else f"{name} with L blocks"
    where = circumstances(next(iter(measured)))
    note = f"{what}, {where}. Live tensors above the steady state, without the parameters' gradients."
    return Figure(
        f"Peak memory against depth: {name}",
        "depth" if is_chain else name_of(f"depth {name}"),
        svg,
        f"{'; '.join(said)}.",
        (note,),
    )
