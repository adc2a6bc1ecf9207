"""`pytest --benchmark --revbench-baseline`, and the fixture ``revbench_drift``, as a user would call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import revbench
from revbench.case import Case
from tests.conftest import run_command
from tests.results.rows import make_row, write_run

NETWORK = """
import os
import torch
from torch import nn
import revbench


def half(i):
    layers = [nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)]
    if os.environ.get("FAULT") and i == 5:
        with torch.no_grad():
            layers[0].weight.mul_(300)  # nearly singular: the inverse can't be had from rounded activations
    return nn.Sequential(*layers)


def make():
    chain = revbench.reversible([(half(2 * i), half(2 * i + 1)) for i in range(5)])

    def make_batch(count, generator):
        return torch.randn(count, 16, generator=generator), torch.randint(16, (count,), generator=generator)

    return chain, make_batch, nn.functional.cross_entropy


def batch():
    return torch.randn(16, 16), torch.randint(16, (16,))
"""
SUITE = """
from revbench import Case


def test_mine(revbench):
    case = Case(model="network:make", strategy="reconstructed", batch_size=16)
    revbench.measure(case, "drift", draws=8, first_draw=100)
"""
OWN = """
import network


def test_gradient(revbench_drift):
    record = revbench_drift(lambda: network.make()[0], network.batch, dtype="float32")
    record.assert_within(angle_degrees=0.1, smooth_amplification=20, activation_error=1e-5)
"""


@pytest.mark.slow
def test_a_baseline_in_a_users_own_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_server: None) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "bench_mine.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    case = Case(model="network:make", strategy="reconstructed", batch_size=16)
    revbench.measure(case, "drift", options={"drift": {"draws": 8, "first_draw": 0}}, output="before")
    path = {"PYTHONPATH": str(tmp_path)}
    gate = ("--benchmark", "bench_mine.py", "--revbench-baseline=before")
    summary = tmp_path / "summary.md"
    good = run_command(*gate, "--revbench-output=good", cwd=tmp_path, **path, GITHUB_STEP_SUMMARY=str(summary))
    assert good.returncode == 0, good.stdout
    assert json.loads((tmp_path / "good" / "gate.json").read_text())["failed"] is False
    assert (tmp_path / "good" / "gate.md").read_text().startswith("### ✅ gate against before")
    assert summary.read_text().startswith("### ✅ gate against before")
    assert "gate against before (like hardware): 3 metrics of 1 cases, 0 worse" in good.stdout
    bad = run_command(*gate, "--revbench-output=bad", cwd=tmp_path, FAULT="1", **path)
    assert bad.returncode == 1, bad.stdout
    worse = next(line for line in bad.stdout.splitlines() if line.startswith("WORSE"))
    assert "network:make reconstructed" in worse
    assert "most in blocks." in worse
    assert (tmp_path / "bad" / "report.html").is_file()
    limited = run_command(
        *gate, "--revbench-output=limited", "--revbench-fail-on=angle_degrees > 0", cwd=tmp_path, **path
    )
    assert limited.returncode == 1, limited.stdout
    assert "its limit is angle_degrees > 0" in limited.stdout
    nowhere = run_command("--benchmark", "bench_mine.py", "--revbench-baseline=nowhere", cwd=tmp_path, **path)
    assert nowhere.returncode == 4
    assert "nowhere is not a run folder" in nowhere.stderr
    assert not (tmp_path / "reports").exists()


def test_nothing_to_compare_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    write_run(tmp_path / "before", make_row(case=Case(model="revnet-38", batch_size=999)))
    (tmp_path / "bench_mine.py").write_text(
        "import pytest\nfrom revbench import Case\n\n\n"
        "@pytest.mark.parametrize('case', [Case(model='revnet-38', batch_size=1)], ids=str)\n"
        "def test_mine(revbench, case):\n    revbench.measure(case, 'parameters')\n"
    )
    gate = ("--benchmark", "bench_mine.py", "--revbench-baseline=before", "--revbench-output=out")
    done = run_command(*gate, cwd=tmp_path)
    assert done.returncode == 4
    assert "the baseline before has none of the 1 cases that were selected" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "rows.jsonl").exists()
    for option, words in (("--revbench-fail-on=speed > 3%", "metric 'speed'"), ("--revbench-fail-on=", "give METRIC")):
        done = run_command(*gate, option, cwd=tmp_path)
        assert done.returncode == 4
        assert words in done.stderr
    alone = run_command("--benchmark", "bench_mine.py", "--revbench-fail-on=peak_bytes > 3%", cwd=tmp_path)
    assert alone.returncode == 4
    assert "give --revbench-baseline, too" in alone.stderr


def test_the_fixture_in_a_users_own_tests(tmp_path: Path) -> None:
    """That it fails; that it passes is shown by the guards of the how-to (`tests/test_docs.py`)."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "test_own.py").write_text(OWN)
    failed = run_command("-q", "test_own.py", cwd=tmp_path, PYTHONPATH=str(tmp_path), FAULT="1")
    assert failed.returncode == 1
    assert "AssertionError: smooth_amplification is" in failed.stdout
    assert "most in blocks." in failed.stdout
