"""Libraries and strategies in the plane of memory and time."""

from __future__ import annotations

from typing import Any

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import way_of
from revbench.choices import TORCH_STRATEGIES
from revbench.compare.ratios import Ratio
from revbench.probes.declared import MEMORY
from revbench.report.chain_groups import chain_groups, kind_of
from revbench.report.charts.canvas import canvas, svg_of, with_tip
from revbench.report.charts.plotting import LogLocator
from revbench.report.colours import FOREIGN, look_of
from revbench.report.document import Figure
from revbench.report.evidence import Evidence

_MARKERS = {"revtorch": "<", "revlib": "v", "memcnn": ">"}
_Point = tuple[Case, float, Ratio]


def chain_plane(evidence: Evidence) -> Figure | None:
    """Draws memory against time, both as a share of plain autograd's: down and to the left is better."""
    panels = []
    for stored, cases in chain_groups(evidence).items():
        points = []
        for case in cases:
            memory = evidence.ratio(case, stored, MEMORY["allocated_activation_peak_bytes"])
            time = evidence.time_ratio(case, stored)
            if memory is not None and time is not None:
                points.append((case, memory, time))
        if len(points) > 1:
            panels.append((stored, points))
    if not panels:
        return None
    said = []
    with canvas(3.4, len(panels)) as (figure, found):
        for axes, (stored, points) in zip([found] if len(panels) == 1 else found, panels, strict=True):
            for point in points:
                said.append(_draw(axes, point))
            axes.set(title=kind_of(stored), xlabel="memory, over stored", xscale="log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
            axes.set_xlim(0.85 * min(memory for _, memory, _ in points), 1.3)
        figure.axes[0].set_ylabel("time of a step, over stored")
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=4)
        svg = svg_of(figure)
    note = (
        "Allocated memory above the steady state, and time of a step, each over that of stored in the same launch; bars:"
        " intervals of 95 %. Down and to the left is better. Filled: revbench; open: PyTorch's own and other"
        " libraries, and what is compiled. Pale: unstable."
    )
    return Figure(
        "Memory against time of libraries", "libraries", svg, f"Memory and time of stored: {'; '.join(said)}.", (note,)
    )


def _draw(axes: Any, point: _Point) -> str:
    """Draw a point; returns it in words."""
    case, memory, time = point
    chain = Chain.of(case)
    assert chain is not None
    of_torch = case.strategy in TORCH_STRATEGIES
    look = look_of(case)
    drawn = axes.errorbar(
        memory, time.value, yerr=[[time.value - (time.low or time.value)], [(time.high or time.value) - time.value]],
        fmt=_MARKERS.get(chain.library, look.marker), color=FOREIGN if chain.is_foreign else look.colour,
        markersize=7, markerfacecolor="none" if chain.is_foreign or of_torch or case.compile else None, linewidth=1.2,
        label=way_of(case),
    )  # fmt: skip
    drawn.lines[0].set_alpha(0.35 if time.unstable else 1.0)
    with_tip(drawn.lines[0], f"{way_of(case)}: memory {memory:.2f} ×, time {time}")
    return f"{kind_of(case)} {way_of(case)} {memory:.2f}, {time.value:.2f}"
