"""Angle and error of each RevNet's gradient against the float64 stored reference."""

import pytest

from revbench.tiers import drift_cases

BUDGET_SECONDS = 40


@pytest.mark.revbench_cases(of=drift_cases)
def test_drift(revbench, case):
    draws = revbench.plan.size.draws
    revbench.measure(case, "drift", draws=draws, first_draw=(revbench.repeat - 1) * draws)
