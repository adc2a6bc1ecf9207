"""Chains by libraries and PyTorch's own ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from revbench.case import Case
from revbench.report.document import Figure, Table
from tests.report.reports import memory, report_of, timed_row
from tests.results.rows import make_row


def test_chains_have_a_table_and_a_plane_of_their_own(tmp_path: Path) -> None:
    rows = []
    stored = Case(model="revbench.peers:chain(library=revbench,kind=basic,blocks=4)", batch_size=4)
    peer = stored.replace(model="revbench.peers:chain(library=memcnn,kind=basic,blocks=4)", strategy="reconstructed")
    unwatched = stored.replace(model=stored.model.replace(")", ",tripwire=False)"), strategy="reconstructed")
    cases = {
        stored: (8, 1.0), stored.replace(strategy="reconstructed"): (1, 1.3), peer: (3, 1.7),
        stored.replace(strategy="torch_checkpoint"): (2, 1.4),
        stored.replace(strategy="reconstructed", compile=True): (1, 1.2),
        unwatched: (1, 1.29),
    }  # fmt: skip
    for case, (mib, seconds) in cases.items():
        found: dict[str, Any] = {**memory(mib << 20), "allocated_activation_peak_bytes": mib << 20}
        if case.compile:
            found |= {"activation_peak_bytes": None, "activation_peak_bytes_reason": "compiled"}
        rows.append(make_row(case=case, probe="memory", metrics=found, samples={}))
        for repeat, factor in ((1, 1.0), (2, 10.0)):  # the ratio is taken launch by launch
            rows.append(timed_row(case, seconds * factor, repeat=repeat))
    rows.append(make_row(case=peer, probe="flops", status="crashed", metrics={}, samples={}, message="no"))
    report = report_of(tmp_path, *rows)
    (section,) = [s for s in report.sections if s.title == "Libraries and PyTorch's own ways"]
    figure, table = section.blocks
    assert isinstance(figure, Figure)
    assert isinstance(table, Table)
    by_way = {row[1]: row for row in table.rows}
    assert by_way["memcnn"][4] == "0.38 ×"
    assert by_way["memcnn"][6] == "1.70 ×"
    assert by_way["memcnn"][7] == "crashed"
    assert by_way["reconstructed"][6] == "1.30 ×"
    assert by_way["reconstructed, no tripwire"][6] == "1.29 ×"
    assert by_way["reconstructed, compiled"][2:5] == ["–", "1.0 MiB", "0.12 ×"]
    assert "torch_checkpoint 0.25, 1.40" in figure.alternative
    assert not any(s.title in ("Memory", "Time and computation") for s in report.sections)
