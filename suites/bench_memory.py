"""Peak bytes of a training step by phase, for each pair under each strategy."""

import pytest

from revbench.tiers import depth_cases, step_cases

BUDGET_SECONDS = 45


@pytest.mark.revbench_cases(of=step_cases)
def test_memory(revbench, case):
    revbench.measure(case, "memory", timeline=revbench.repeat == 1)  # every launch would draw the same line


@pytest.mark.revbench_cases(of=depth_cases)
def test_depth(revbench, case):
    revbench.measure(case, "memory", timeline=False)
