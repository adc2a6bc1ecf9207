"""Angle, smooth part and flips of each RevNet's gradient against the float64 stored reference; why; and whether steps repeat."""

import pytest

from revbench.suite_cases import determinism_cases, drift_cases, drift_depth_cases, lipschitz_cases

BUDGET_SECONDS = 110


def measure(revbench, case):
    draws = revbench.plan.size.draws
    revbench.measure(case, "drift", draws=draws, first_draw=(revbench.repeat - 1) * draws, timeout_seconds=3600.0)


@pytest.mark.revbench_cases(of=drift_cases)
def test_drift(revbench, case):
    measure(revbench, case)


@pytest.mark.revbench_cases(of=drift_depth_cases)
def test_drift_against_depth(revbench, case):
    measure(revbench, case)


@pytest.mark.revbench_cases(of=lipschitz_cases)
def test_lipschitz(revbench, case):
    revbench.measure(case, "lipschitz", draw=revbench.repeat - 1)


@pytest.mark.revbench_cases(of=determinism_cases)
def test_determinism(revbench, case):
    revbench.measure(case, "determinism")
