"""Parameters of every network of the catalogue, and floating-point operations of each pair under each strategy."""

import pytest

from revbench.suite_cases import catalogue_cases, step_cases

BUDGET_SECONDS = 25


@pytest.mark.revbench_cases(of=catalogue_cases)
def test_parameters(revbench, case):
    revbench.measure(case, "parameters")


@pytest.mark.revbench_cases(of=step_cases)
def test_flops(revbench, case):
    revbench.measure(case, "flops")
