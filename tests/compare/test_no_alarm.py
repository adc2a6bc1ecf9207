"""That the gate is quiet where nothing changed: hundreds of runs of unchanged networks, each on its own seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.compare import compare_folders
from revbench.probes.drift import measure_drift
from revbench.results.journal import Journal
from revbench.workload import build_workload
from tests.results.rows import ENVIRONMENT, make_row

RUNS = 300
CASES = [
    Case(model="revnet-38", strategy="reconstructed", image_size=8, batch_size=4),
    Case(model="tests.probes.test_drift:smooth_model", strategy="reconstructed", batch_size=8),
    Case(model="tests.probes.test_drift:smooth_model", strategy="reconstructed", batch_size=8, dtype="float64"),
    Case(model="tests.probes.test_drift:smooth_model", strategy="reconstructed", batch_size=8, dtype="bfloat16"),
]


def run(folder: Path, first_draw: int, draws: int) -> Path:
    journal = Journal(folder)
    journal.add_environment(ENVIRONMENT)
    for case in CASES:
        found = measure_drift(build_workload(case), progress=lambda _: None, draws=draws, first_draw=first_draw)
        row = make_row(case=case, probe="drift", metrics=dict(found.metrics), samples=dict(found.samples))
        series = journal.add_series(row.key, found.series)
        journal.add_row(dataclasses.replace(row, series=series))
    journal.close()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("baseline_draws", [30, 15])
def test_unchanged_networks_raise_no_alarm(tmp_path: Path, baseline_draws: int) -> None:
    """A baseline of the full tier, and one of 15 draws; every run has 6 draws, as the quick tier."""
    baseline = run(tmp_path / "baseline", 10_000, baseline_draws)
    alarms = []
    gated = 0
    for number in range(RUNS):
        found = compare_folders(baseline, run(tmp_path / str(number), 6 * number, 6))
        gated += sum(finding.outcome == "same" for finding in found.findings)
        alarms += [str(finding) for finding in found.findings if finding.outcome == "worse"]
    print(f"{gated} metrics of {RUNS} runs hold, {len(alarms)} alarms")
    assert not alarms
    assert gated >= (9 if baseline_draws == 30 else 7) * RUNS  # of 11; the others can't be told: few draws can't tell
