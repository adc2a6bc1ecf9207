"""The pages of docs/how-to are followed word for word from an empty folder; those of packages in tests/test_extensions.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from revbench.results.runs import read_run
from tests.conftest import ROOT
from tests.following import Follower

PAGES = {path.stem for path in (ROOT / "docs" / "how-to").glob("*.md")}


def followed(page: str, tmp_path: Path) -> Follower:
    folder, site = tmp_path / "empty", tmp_path / "site"
    folder.mkdir()
    follower = Follower(folder, site)
    follower.follow(page)
    return follower


def test_every_page_is_followed_somewhere() -> None:
    named = "".join((ROOT / "tests" / name).read_text() for name in ("test_how_to.py", "test_extensions.py"))
    assert [page for page in PAGES if f'"{page}"' not in named] == []


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


@pytest.mark.slow  # a minute
def test_a_strategy_is_chosen(tmp_path: Path) -> None:
    follower = followed("choose-a-strategy", tmp_path)
    estimate, drift, *times = follower.said
    assert "largest batch" in estimate
    assert drift.count("safe: no training would see it") == 2
    (timed,) = times  # the suite of the catalogue is a GPU's
    assert timed.count("images a second") == 2


def test_two_gpus_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "reference").symlink_to(ROOT / "reports" / "reference")
    follower = Follower(folder, tmp_path / "site")
    follower.follow("compare-two-gpus")
    text = (folder / "both" / "report.md").read_text()
    assert "## Machines side by side" in text
    assert "| RevNet-104 | H200 | reconstructed |" in text
