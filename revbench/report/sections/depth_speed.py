"""Depth within the same memory: whether a larger batch wins back the time that reconstruction costs."""

from __future__ import annotations

from collections.abc import Iterator

from revbench.case import Case
from revbench.case.labels import circumstances, strategy_of, title_of
from revbench.case.pairs import group_of
from revbench.compare.ratios import LEAST_LAUNCHES, NOTABLE, Ratio
from revbench.prediction.declared import FIT
from revbench.probes.declared import TIME
from revbench.report.charts.depth_speed import depth_speed_figure
from revbench.report.document import MISSING, Paragraph, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, tokens, value_cell, why_unstable, with_interval, words
from revbench.report.within_limit import batch_of, items_per_second, speed_ratio, timed_within
from revbench.units import human_bytes, human_rate


def section(evidence: Evidence) -> Section | None:
    """Returns the answer in words, the picture and the table."""
    groups = by_depth(evidence)
    return Section.of(
        "Depth within the same memory",
        [*_sentences(evidence, groups), depth_speed_figure(evidence, groups), _table(evidence, groups)],
    )


def by_depth(evidence: Evidence) -> dict[Case, dict[int, list[Case]]]:
    """Returns the cases of each pair and limit that say how deep they are, by depth."""
    found: dict[Case, dict[int, list[Case]]] = {}
    for case in evidence.cases(FIT):
        if case.memory_limit_bytes and case.depth is not None:
            key = group_of(case).replace(depth=None)
            found.setdefault(key, {}).setdefault(case.depth, []).append(case)
    return {key: dict(sorted(depths.items())) for key, depths in found.items()}


def _sentences(evidence: Evidence, groups: dict[Case, dict[int, list[Case]]]) -> Iterator[Paragraph]:
    """Says at which depths reconstruction at its largest batch is surely faster, or surely slower, than stored at its own."""
    for key, depths in groups.items():
        model = key.model
        said: dict[str, list[int]] = {"faster": [], "slower": [], "not told apart": [], "stored does not fit": []}
        amount_is_open = False
        for depth, cases in depths.items():
            ours = next((case for case in cases if case.strategy == "reconstructed"), None)
            if ours is None:
                continue
            model = ours.model
            ratio = speed_ratio(evidence, ours, ours.stored())
            if ratio is None:
                fits = timed_within(evidence, ours) is not None and timed_within(evidence, ours.stored()) is None
                if fits:
                    said["stored does not fit"].append(depth)
            else:
                which = _surely(ratio)
                said[which or "not told apart"].append(depth)
                amount_is_open |= which is not None and ratio.unstable is not None
        told = [f"{word} at {', '.join(map(str, at))} blocks" for word, at in said.items() if at]
        if told:
            yield Paragraph(
                f"{title_of(model)} within {human_bytes(key.memory_limit_bytes)}, each with the largest batch that fits,"
                f" reconstructed against stored: {'; '.join(told)}."
                f"{' By how much is not settled where the table says unstable.' * amount_is_open}"
            )


def _surely(ratio: Ratio) -> str | None:
    """Returns whether one is faster or slower, if that can be told.

    Also of a ratio that is unstable, if several launches agree: by how much it is faster is open then, but not that it is.
    """
    if ratio.low is None or ratio.high is None or (ratio.unstable and ratio.launches < LEAST_LAUNCHES):
        return None
    margin = 1 + NOTABLE if ratio.unstable else 1.0
    return "faster" if ratio.low > margin else "slower" if ratio.high < 1 / margin else None


def _table(evidence: Evidence, groups: dict[Case, dict[int, list[Case]]]) -> Table | None:
    lines = [cases for depths in groups.values() for cases in depths.values()]
    cases = [case for group in lines for case in group]
    if not cases:
        return None

    def step(case: Case) -> str:
        timed = timed_within(evidence, case)
        return value_cell(evidence, timed, TIME["step_seconds"]) if timed is not None else MISSING

    def speed(case: Case) -> str:
        found = items_per_second(evidence, case)
        return f"{human_rate(found)}{tokens(case)}" if found else MISSING

    columns = [
        words("Limit", lambda case: human_bytes(case.memory_limit_bytes)),
        words("Network", lambda case: title_of(case.model)),
        words("Strategy", strategy_of),
        Column("Depth", lambda case: str(case.depth)),
        Column("Batch", lambda case: batch_of(evidence, case)),
        Column("Step", step),
        Column("Items a second", speed),
        Column("to stored", lambda case: with_interval(speed_ratio(evidence, case, case.stored()))),
    ]
    one = cases[0].replace(depth=None)
    notes = [
        f"{circumstances(one, batch=False)}. Batch: the largest whose predicted peak fits into the limit; the time is measured."
        " To stored: items a second over those of the same network under stored with its own largest batch; an interval of 95 %.",
        *why_unstable(
            (
                f"{title_of(case.model)} {strategy_of(case)}, {case.depth} blocks",
                speed_ratio(evidence, case, case.stored()),
            )
            for case in cases
        ),
    ]
    return lay_out(
        "Items a second at growing depth within the same memory", columns, lines, notes, name="depth-and-speed"
    )
