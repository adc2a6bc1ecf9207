"""What the tables of a training step have in common: a line for each network of a pair under each strategy."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from revbench.case import Case
from revbench.case.labels import circumstances, network_name, strategy_of
from revbench.case.pairs import paired
from revbench.probes import Probe
from revbench.report.chain_groups import has_its_own_table
from revbench.report.document import Table
from revbench.report.evidence import Evidence
from revbench.report.table import Column, lay_out, with_something, words


def strategy_table(
    title: str, name: str, evidence: Evidence, probes: Sequence[Probe], columns: Sequence[Column[Case]], notes: Sequence[str]
) -> Table | None:  # fmt: skip
    """Returns a table of all networks under all strategies, without columns that have nothing; where a case failed, its status
    stands in the first column of numbers.

    Args:
        title, name: of the table.
        evidence: what was measured.
        probes: which measured it; the status is the first one's.
        columns: those after network and strategy.
        notes: after what the cases have in common.
    """
    cases = [case for case in evidence.cases(*probes) if not has_its_own_table(evidence, case)]
    common = []
    groups: list[list[Case]] = []
    for pair in paired(cases):
        common.append(f"{' and '.join(dict.fromkeys(network_name(c) for c in pair))}: {circumstances(pair[0])}")
        groups += [list(group) for _, group in itertools.groupby(pair, key=lambda case: network_name(case))]
    first, *others = columns

    def or_status(case: Case) -> str:
        return evidence.failure(case, probes[0]) or first.cell(case)

    others = with_something(others, [case for group in groups for case in group])
    heads = [words("Network", lambda case: network_name(case)), words("Strategy", strategy_of)]
    return lay_out(
        title, [*heads, Column(first.head, or_status), *others], groups, [f"{'; '.join(common)}.", *notes], name=name
    )
