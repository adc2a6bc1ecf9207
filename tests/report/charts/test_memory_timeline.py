"""Which strategies are drawn over a step."""

from __future__ import annotations

from pathlib import Path

from revbench.case import Case
from tests.report.reports import figures, memory, report_of
from tests.results.rows import Columns, make_row


def test_the_strategies_of_a_users_network_are_drawn(tmp_path: Path) -> None:
    columns: Columns = {"operation": [1], "live_bytes": [5], "phase": ["forward"]}
    cases = [
        Case(model="resnets.mine:make", strategy=strategy, nonreversible=nonreversible)
        for strategy, nonreversible in (("stored", "kept"), ("reconstructed", "kept"), ("checkpointed", "recomputed"))
    ]
    rows = [make_row(case=case, probe="memory", metrics=memory(7), samples={}) for case in cases]
    (figure,) = figures(report_of(tmp_path, *((row, columns) for row in rows))).values()
    assert all(word in figure.alternative for word in ("stored", "reconstructed", "checkpointed, rest recomputed"))
