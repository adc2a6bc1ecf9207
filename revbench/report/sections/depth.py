"""Memory against depth: Table 1 of the paper, measured."""

from __future__ import annotations

from revbench.case import Case
from revbench.case.labels import strategy_of
from revbench.paper.published import GOMEZ_2017, TABLE_1_ACTIVATIONS, TABLE_1_COMPUTATION
from revbench.report.charts.depth import (
    FLAT,
    depth_figures,
    family_name,
    fit_growth,
    operations_by_depth,
    peaks_by_depth,
)
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.table import Column, lay_out, words
from revbench.units import human_bytes


def section(evidence: Evidence) -> Section | None:
    """Returns the picture, then the table."""
    return Section.of("Memory against depth", [*depth_figures(evidence), depth_table(evidence)])


def depth_table(evidence: Evidence) -> Table | None:
    """Returns Table 1 of the paper: what it says of the growth of activations, and what was measured."""
    measured = peaks_by_depth(evidence)
    if not measured:
        return None
    all_depths = sorted({depth for depths, _ in measured.values() for depth in depths})
    growths = {case: fit_growth(depths, peaks) for case, (depths, peaks) in measured.items()}

    def at(depth: float) -> Column[Case]:
        def cell(case: Case) -> str:
            by_depth = dict(zip(*measured[case], strict=True))
            return human_bytes(by_depth[depth]) if depth in by_depth else MISSING

        return Column(f"L = {depth:.0f}", cell)

    columns = [
        words("Blocks of", family_name),
        words("Strategy", strategy_of),
        words("Paper: activations", lambda case: TABLE_1_ACTIVATIONS.get(case.strategy, MISSING)),
        words("Paper: operations", lambda case: TABLE_1_COMPUTATION.get(case.strategy, MISSING)),
        *map(at, all_depths),
        Column("Fitted growth", lambda case: str(growths[case])),
        Column("Residual", lambda case: f"{growths[case].residual:.1%}"),
    ]
    operations = operations_by_depth(evidence)
    groups: dict[str, list[Case]] = {}
    for case in measured:
        groups.setdefault(family_name(case), []).append(case)

    def operations_of(case: Case) -> str:
        ratios = operations.get(case, {})
        ends = sorted({min(ratios), max(ratios)}) if ratios else []
        return " → ".join(f"{ratios[depth]:.2f} ×" for depth in ends) or MISSING

    if operations:
        columns.append(Column("Operations to stored", operations_of))
    notes = [
        "Peak of live tensors above the steady state, without the parameters' gradients. Paper: Table 1 of"
        f" {GOMEZ_2017}. Fitted: a constant and one of ⌈log2 L⌉ (a chain is halved so often), √L and L,"
        f" whichever leaves least; constant alone if the peak changes by less than {FLAT:.0%} over all depths. L: blocks, of"
        " a residual network units a group. Reconstruction reuses the batch statistics of its forward pass, of basic blocks 1 KiB"
        f" a block, so it grows by that.{' Operations: at the smallest and at the largest L.' if operations else ''}",
    ]
    return lay_out(
        "Peak memory against depth (the paper's Table 1)", columns, list(groups.values()), notes, name=names.DEPTH
    )
