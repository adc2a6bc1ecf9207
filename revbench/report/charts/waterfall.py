"""From live tensors to what the system shows, as waterfalls: where a saving goes on its way to nvidia-smi."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import is_ordinary, paired
from revbench.probes.declared import MEMORY
from revbench.probes.reconciliation import LEVELS
from revbench.report.charts.canvas import canvas, svg_of, with_tip
from revbench.report.colours import LESS, LEVEL, ON_TOP
from revbench.report.document import Figure, name_of
from revbench.report.evidence import Evidence
from revbench.report.memory_chain import chain_of, reconciled_cases
from revbench.units import human_bytes

_CROWDED = 6  # bars, beyond which their numbers are turned


class _Bar(NamedTuple):
    name: str
    start: float
    height: float
    is_level: bool


def waterfalls(evidence: Evidence) -> Iterator[Figure]:
    """Draws for each RevNet the chain under stored and under reconstructed."""
    for group in paired(reconciled_cases(evidence)):
        shown = [c for c in group if not is_ordinary(c) and c.nonreversible == "kept"]
        shown = [c for c in shown if c.strategy in ("stored", "reconstructed")]
        falls = [(case, bars) for case in shown if len(bars := _bars(evidence, case)) > 1]
        if len(falls) >= 2:
            yield _figure(falls)


def _figure(falls: list[tuple[Case, list[_Bar]]]) -> Figure:
    said = []
    crowded = max(len(bars) for _, bars in falls) > _CROWDED
    with canvas(2.9, len(falls), one_scale=True) as (figure, axes):
        for axis, (case, bars) in zip(axes, falls, strict=True):
            _draw(axis, bars, crowded=crowded)
            axis.set_title(strategy_of(case))
            last = bars[-1]
            end = last.height if last.is_level else last.start + last.height
            said.append(f"{strategy_of(case)} from {human_bytes(bars[0].height)} to {human_bytes(end)}")
        axes[0].set_ylabel("MiB")
        axes[0].set_ylim(top=axes[0].get_ylim()[1] * (1.3 if crowded else 1.06))
        svg = svg_of(figure)
    first = falls[0][0]
    name = network_name(first)
    note = f"{circumstances(first)}. Dark: what is counted; light: what comes on top of it; both panels to one scale."
    title = f"From live tensors to what the system shows: {name}"
    return Figure(title, name_of(f"system-memory {name}"), svg, f"{name}: {'; '.join(said)}.", (note,))


def _draw(axis: Any, bars: list[_Bar], *, crowded: bool) -> None:
    for at, (name, start, height, is_level) in enumerate(bars):
        colour = LEVEL if is_level else (ON_TOP if height >= 0 else LESS)
        bars_drawn = axis.bar(at, height / 2**20, bottom=start / 2**20, color=colour, width=0.72)
        top = max(start, start + height)
        text = human_bytes(height) if is_level else f"{'+' if height >= 0 else '-'}{human_bytes(abs(height))}"
        with_tip(list(bars_drawn), f"{name}: {text}")
        axis.annotate(
            text, (at, top / 2**20), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=7,
            rotation=90 if crowded else 0,
        )  # fmt: skip
    names = [bar.name for bar in bars]
    axis.set_xticks(range(len(bars)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize=7.5)
    axis.grid(axis="x", visible=False)


def _bars(evidence: Evidence, case: Case) -> list[_Bar]:
    """Up to the first number that is missing."""
    chain = chain_of(case)
    first = evidence.value(case, MEMORY[chain[0].below])
    if first is None:
        return []
    bars = [_Bar(LEVELS[chain[0].below], 0.0, first.median, True)]
    for gap in chain:
        low, high = evidence.value(case, MEMORY[gap.below]), evidence.value(case, MEMORY[gap.above])
        if low is None or high is None:
            break
        bars.append(_Bar(gap.head, low.median, high.median - low.median, False))
        bars.append(_Bar(LEVELS[gap.above], 0.0, high.median, True))
    return bars
