"""Seconds of a training step and of its phases, for each pair under each strategy."""

import pytest

from revbench.suite_cases import step_cases

BUDGET_SECONDS = 50


@pytest.mark.revbench_cases(of=step_cases)
def test_time(revbench, case):
    revbench.measure(case, "time", max_seconds=revbench.plan.size.max_seconds)
