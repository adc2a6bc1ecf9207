"""A count of operations that is not complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.report.document import Paragraph
from revbench.runner.session import result_of
from tests.report.reports import report_of, tables
from tests.results.rows import make_row


def counted(flops: float, **others: Any) -> dict[str, Any]:
    return {"step_flops": flops, "forward_flops": 1e9, "backward_flops": flops - 1e9, **others}


def test_a_count_that_is_not_complete_has_no_ratio(tmp_path: Path) -> None:
    stored = Case(model="revnet-38", batch_size=16)
    ours = stored.replace(strategy="reconstructed")
    rows = [
        make_row(case=case, probe="flops", metrics=counted(flops, uncounted_operators="theirs::kernel (3 calls)"), samples={})
        for case, flops in ((stored, 3e9), (ours, 4e9))
    ]  # fmt: skip
    rows.append(make_row(case=stored.replace(model="resnet-32"), probe="flops", metrics=counted(3e9), samples={}))
    report = report_of(tmp_path, *rows)
    table = tables(report)["Time and computation of a training step"]
    column = table.columns.index("Operations")
    shown = {tuple(row[:2]): row[column : column + 2] for row in table.rows}
    assert shown[("ResNet-32", "stored")] == ["3.00 GFLOP", "1.00 ×"]
    assert shown[("RevNet-38", "stored")] == ["≥ 3.00 GFLOP", "–"]
    assert shown[("RevNet-38", "reconstructed")] == ["≥ 4.00 GFLOP", "–"]
    assert table.notes[-1].endswith("are not counted (RevNet-38: theirs::kernel (3 calls)).")
    assert not any("operations" in b.text for b in report.sections[0].blocks if isinstance(b, Paragraph))
    assert result_of(rows[0]).endswith("a step at least: no formula for theirs::kernel (3 calls)")
