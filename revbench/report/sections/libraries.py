"""Libraries and PyTorch's own ways: chains of reversible blocks, back-propagated by each."""

from __future__ import annotations

from revbench.case import Case
from revbench.case.chains import Chain
from revbench.case.labels import circumstances, way_of
from revbench.probes import Probe
from revbench.probes.declared import FLOPS_OF_STEP, MEMORY, TIME
from revbench.report.chain_groups import chain_groups, kind_of
from revbench.report.charts.plane import chain_plane
from revbench.report.document import MISSING, Section, Table
from revbench.report.evidence import Evidence
from revbench.report.sections import names
from revbench.report.sections.operations import operations_ratio, uncounted_note
from revbench.report.table import Column, lay_out, times, value_cell, why_unstable, with_interval, words


def section(evidence: Evidence) -> Section | None:
    """Returns the plane of memory and time, then the table."""
    return Section.of("Libraries and PyTorch's own ways", [chain_plane(evidence), chain_table(evidence)])


def chain_table(evidence: Evidence) -> Table | None:
    """Returns memory, time and operations of each way on each chain, beside plain autograd's."""
    groups = chain_groups(evidence)
    if not groups:
        return None
    bases = {case: stored for stored, cases in groups.items() for case in cases}
    allocated = MEMORY["allocated_activation_peak_bytes"]

    def or_status(head: str, probe: Probe, name: str) -> Column[Case]:
        def cell(case: Case) -> str:
            found = value_cell(evidence, case, probe[name])
            return found if found != MISSING else evidence.failure(case, probe) or MISSING

        return Column(head, cell)

    def operations(case: Case) -> str:
        found = operations_ratio(evidence, case, bases[case])
        return f"{found:.3f} ×" if found is not None else evidence.failure(case, FLOPS_OF_STEP) or MISSING

    columns = [
        words("Chain", kind_of),
        words("Way", way_of),
        or_status("Live tensors", MEMORY, "activation_peak_bytes"),
        or_status("Allocated", MEMORY, allocated.name),
        Column("to stored", lambda case: times(evidence.ratio(case, bases[case], allocated))),
        or_status("Step", TIME, "step_seconds"),
        Column("to stored", lambda case: with_interval(evidence.time_ratio(case, bases[case]))),
        Column("Operations to stored", operations),
    ]
    title = "Ways to back-propagate a chain of reversible blocks"
    return lay_out(title, columns, groups.values(), _notes(evidence, groups), name=names.LIBRARIES)


def _notes(evidence: Evidence, groups: dict[Case, list[Case]]) -> list[str]:
    first = next(iter(groups))
    chain = Chain.of(first)
    cases = [case for group in groups.values() for case in group]
    count = max((len(evidence.launches(case, TIME)) for case in cases), default=0)
    of = f"of {count} launches" if count > 1 else "of one launch"
    blocks = chain.blocks if chain is not None and chain.blocks is not None else MISSING
    return [
        f"Chains of {blocks} blocks at 32×32, {circumstances(first)}. Basic: 64 channels, F and"
        " G are BN-ReLU-3×3 twice; bottleneck: 128 channels, 1×1, 3×3, 1×1 on a quarter of a half. The weights are the same.",
        "Live tensors: their peak above the steady state. Allocated: what the allocator gave out above it, with what a"
        " kernel takes and gives back inside one operation; compiled code shows there only.",
        f"Time: steps of all ways in turn in one process; ratios {of}, with an interval of 95 %. torch_…: PyTorch's own ways.",
        *uncounted_note(evidence, cases),
        *why_unstable(
            (f"{kind_of(case)} {way_of(case)}", evidence.time_ratio(case, stored))
            for stored, group in groups.items()
            for case in group
        ),
    ]
