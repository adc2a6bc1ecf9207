"""docs/how-to/bring-a-network.md, followed word for word from an empty folder."""

from __future__ import annotations

from pathlib import Path

from revbench.results.runs import read_run
from tests.how_to.following import followed


def test_a_network_is_brought(tmp_path: Path) -> None:
    follower = followed("bring-a-network", tmp_path)
    runs = follower.folder / "runs"
    for name in ("images", "tokens", "padded"):
        stored, reconstructed = (row for row in read_run(runs / name).rows if row.probe == "memory")
        assert reconstructed.metrics["peak_bytes"] < stored.metrics["peak_bytes"]  # type: ignore[operator]
    (trained,) = read_run(runs / "trained").rows
    assert (trained.status, trained.case.training_steps) == ("ok", 10)
    drift, doctor = follower.said[-2:]
    (line,) = [line for line in drift.splitlines() if line.startswith("drift") and "reconstructed" in line]
    assert "safe: no training would see it" in line
    assert "23 passed, 0 failed, 1 can't be told of padded:language" in doctor
