"""The chains by which libraries are compared: a table and the plane of memory and time."""

from __future__ import annotations

import statistics
from typing import Any

from revbench.case import Case, parse_factory
from revbench.report.document import MISSING, Figure, Table
from revbench.report.evidence import Evidence, Statistic
from revbench.report.figures import canvas, colour_of, svg_of
from revbench.report.operations import operations_ratio, uncounted_note
from revbench.titles import circumstances, strategy_of
from revbench.units import human_bytes, human_seconds
from revbench.words import PEERS, TORCH_STRATEGIES

_PROBES = ("memory", "flops", "time_interleaved")
_UNWATCHED = ",tripwire=False"  # an argument of the factory
_MARKERS = {"revtorch": "^", "revlib": "v", "memcnn": "<"}


def is_chain(case: Case) -> bool:
    """Whether a case is one of `revbench.peers`, which have tables of their own."""
    return case.model.startswith("revbench.peers:")


def names_library(case: Case) -> bool:
    """Whether it is a chain that is compared with other libraries', not one of those of growing depth."""
    return is_chain(case) and "library" in parse_factory(case.model)[2]


def _stored(case: Case) -> Case:
    """Plain autograd on the same blocks, uncompiled: what everything on a chain is compared with."""
    model = case.model.replace(f"library={_library(case)}", "library=revbench").replace(_UNWATCHED, "")
    return case.stored().replace(model=model, compile=False)


def _argument(case: Case, name: str) -> str:
    return str(parse_factory(case.model)[2].get(name, MISSING))


def _library(case: Case) -> str:
    return str(parse_factory(case.model)[2].get("library", "revbench"))


def _way(case: Case) -> str:
    library = _library(case)
    way = strategy_of(case) if library == "revbench" else library
    if _UNWATCHED in case.model:
        way = f"{way}, no tripwire"
    return f"{way}, compiled" if case.compile else way


def _groups(evidence: Evidence) -> dict[Case, list[Case]]:
    groups: dict[Case, list[Case]] = {}
    for case in evidence.cases(*_PROBES):
        if names_library(case):
            groups.setdefault(_stored(case), []).append(case)
    return groups


def _time_ratio(evidence: Evidence, case: Case, base: Case) -> Statistic | None:
    """Of steps that were timed in turn in one process, launch by launch."""
    bases = {row.repeat: row.number("step_seconds") for row in evidence.launches(base, "time_interleaved")}
    ratios = [
        seconds / below
        for row in evidence.launches(case, "time_interleaved")
        if (seconds := row.number("step_seconds")) is not None and (below := bases.get(row.repeat))
    ]
    return Statistic(statistics.median(ratios), min(ratios), max(ratios), len(ratios)) if ratios else None


def chain_table(evidence: Evidence) -> Table | None:
    """Memory, time and operations of each way on each chain, beside plain autograd's."""
    rows: list[list[str]] = []
    breaks: list[int] = []
    groups = _groups(evidence)
    for stored, cases in groups.items():
        breaks.append(len(rows))
        for case in cases:
            ours = evidence.value(case, "memory", "allocated_activation_peak_bytes")
            live = evidence.value(case, "memory", "activation_peak_bytes")
            less = evidence.ratio(case, stored, "memory", "allocated_activation_peak_bytes")
            step = evidence.value(case, "time_interleaved", "step_seconds")
            ratio = _time_ratio(evidence, case, stored)
            flops = operations_ratio(evidence, case, stored)
            failed = {probe: evidence.failure(case, probe) for probe in _PROBES}
            rows.append(
                [
                    str(_argument(case, "kind")),
                    _way(case),
                    human_bytes(live.median) if live else failed["memory"] or MISSING,
                    human_bytes(ours.median) if ours else failed["memory"] or MISSING,
                    f"{less:.2f} ×" if less is not None else MISSING,
                    human_seconds(step.median) if step else failed["time_interleaved"] or MISSING,
                    _with_range(ratio),
                    f"{flops:.3f} ×" if flops is not None else failed["flops"] or MISSING,
                ]
            )
    if not rows:
        return None
    first = next(iter(groups))
    count = max((len(evidence.launches(c, "time_interleaved")) for cases in groups.values() for c in cases), default=0)
    of = f"median of {count} launches (smallest to largest)" if count > 1 else "of one launch"
    notes = [
        f"Chains of {_argument(first, 'blocks')} blocks at 32×32, {circumstances(first)}. Basic: 64 channels, F and"
        " G are BN-ReLU-3×3 twice; bottleneck: 128 channels, 1×1, 3×3, 1×1 on a quarter of a half. The weights are the same.",
        "Live tensors: their peak above the steady state. Allocated: what the allocator gave out above it, with what a"
        " kernel takes and gives back inside one operation; compiled code shows there only.",
        f"Time: steps of all ways in turn in one process; ratios launch by launch, {of}. torch_…: PyTorch's own ways.",
        *uncounted_note(evidence, [case for cases in groups.values() for case in cases]),
    ]
    columns = ("Chain", "Way", "Live tensors", "Allocated", "to stored", "Step", "to stored", "Operations to stored")
    return Table("Ways to back-propagate a chain of reversible blocks", columns, rows, 2, notes, breaks[1:])


def _with_range(ratio: Statistic | None) -> str:
    if ratio is None:
        return MISSING
    spread = f" ({ratio.low:.2f} to {ratio.high:.2f})" if ratio.launches > 1 else ""
    return f"{ratio.median:.2f} ×{spread}"


def chain_plane(evidence: Evidence) -> Figure | None:
    """Memory against time, both as a share of plain autograd's: down and to the left is better."""
    panels = []
    for stored, cases in _groups(evidence).items():
        points = []
        for case in cases:
            memory = evidence.ratio(case, stored, "memory", "allocated_activation_peak_bytes")
            time = _time_ratio(evidence, case, stored)
            if memory is not None and time is not None:
                points.append((case, memory, time))
        if len(points) > 1:
            panels.append((stored, points))
    if not panels:
        return None
    said = []
    with canvas(10.2, 4.0, len(panels)) as (figure, found):
        for axes, (stored, points) in zip([found] if len(panels) == 1 else found, panels, strict=True):
            for case, memory, time in points:
                library = _library(case)
                foreign = library in PEERS or case.strategy in TORCH_STRATEGIES
                axes.errorbar(
                    memory, time.median, yerr=[[time.median - time.low], [time.high - time.median]],
                    fmt=_MARKERS.get(library, "s" if case.strategy in TORCH_STRATEGIES else "o"),
                    color="#777777" if library in PEERS else colour_of(case),
                    markersize=8, markerfacecolor="none" if foreign or case.compile else None, linewidth=1.2, label=_way(case),
                )  # fmt: skip
                said.append(f"{_argument(case, 'kind')} {_way(case)} {memory:.2f}, {time.median:.2f}")
            axes.set(title=_argument(stored, "kind"), xlabel="memory, of stored", xscale="log")
            ticks = [0.1, 0.2, 0.5, 1.0]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlim(0.06, 1.3)
        first = figure.axes[0]
        first.set_ylabel("time of a step, of stored")
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(handles.values()), list(handles), loc="outside right center")
        svg = svg_of(figure)
    note = (
        "Allocated memory above the steady state, and time of a step, each over that of stored in the same launch; bars from the"
        " smallest to the largest launch. Down and to the left is better. Filled: revbench; open: PyTorch's own and other"
        " libraries, and what is compiled."
    )
    return Figure("Memory against time", "plane", svg, f"Memory and time of stored: {'; '.join(said)}.", (note,))
