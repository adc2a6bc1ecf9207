"""docs/how-to/guard-it-in-ci.md, followed word for word from an empty folder."""

from __future__ import annotations

import json
from pathlib import Path

from revbench.results.runs import read_run
from tests.how_to.following import followed


def test_it_is_guarded(tmp_path: Path) -> None:
    follower = followed("guard-it-in-ci", tmp_path)
    tests, measured, changed = follower.said
    assert "2 passed" in tests
    assert "report: " in measured
    assert changed.endswith("exit code 1\n")
    drawn = {
        (row.repeat, row.options["first_draw"])
        for row in read_run(follower.folder / "baseline").rows
        if row.probe == "drift"
    }
    assert drawn == {(launch, 6 * (launch - 1)) for launch in range(1, 6)}
    gate = json.loads((follower.folder / "changed" / "gate.json").read_text())
    assert {one["metric"] for one in gate["findings"] if one["outcome"] == "worse"} >= {"peak_bytes"}
    assert (follower.folder / "changed" / "gate.md").is_file()
