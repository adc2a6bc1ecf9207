"""`pytest --benchmark --revbench-baseline`, and the fixture ``revbench_drift``, as a user would call them."""

from __future__ import annotations

from pathlib import Path

import pytest

import revbench
from revbench.case import Case
from tests.conftest import run_command

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


def test_a_baseline_in_a_users_own_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_server: None) -> None:
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "bench_mine.py").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    case = Case(model="network:make", strategy="reconstructed", batch_size=16)
    revbench.measure(case, "drift", options={"drift": {"draws": 8, "first_draw": 0}}, output="before")
    path = {"PYTHONPATH": str(tmp_path)}
    gate = ("--benchmark", "bench_mine.py", "--revbench-baseline=before")
    good = run_command(*gate, "--revbench-output=good", cwd=tmp_path, **path)
    assert good.returncode == 0, good.stdout
    assert "gate against before (like hardware): 3 metrics of 1 cases, 0 worse" in good.stdout
    bad = run_command(*gate, "--revbench-output=bad", cwd=tmp_path, FAULT="1", **path)
    assert bad.returncode == 1, bad.stdout
    worse = next(line for line in bad.stdout.splitlines() if line.startswith("WORSE"))
    assert "network:make reconstructed" in worse
    assert "most in blocks." in worse
    assert (tmp_path / "bad" / "report.html").is_file()
    nowhere = run_command("--benchmark", "bench_mine.py", "--revbench-baseline=nowhere", cwd=tmp_path, **path)
    assert nowhere.returncode == 4
    assert "nowhere is not a run folder" in nowhere.stderr
    assert not (tmp_path / "reports").exists()


def test_the_fixture_in_a_users_own_tests(tmp_path: Path) -> None:
    """That it fails; that it passes is shown by the guards of the how-to (`tests/test_docs.py`)."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "test_own.py").write_text(OWN)
    failed = run_command("-q", "test_own.py", cwd=tmp_path, PYTHONPATH=str(tmp_path), FAULT="1")
    assert failed.returncode == 1
    assert "AssertionError: smooth_amplification is" in failed.stdout
    assert "most in blocks." in failed.stdout
