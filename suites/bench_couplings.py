"""A reversible language model by each coupling: its drift, what its inverse does to errors, the bytes and seconds of its step."""

import pytest

from revbench.suite_cases import coupling_cases, coupling_step_cases

BUDGET_SECONDS = 15


@pytest.mark.revbench_cases(of=coupling_cases)
def test_drift(revbench, case):
    draws = revbench.plan.size.draws
    revbench.measure(case, "drift", draws=draws, first_draw=(revbench.repeat - 1) * draws, timeout_seconds=3600.0)


@pytest.mark.revbench_cases(of=coupling_cases)
def test_lipschitz(revbench, case):
    revbench.measure(case, "lipschitz", draw=revbench.repeat - 1)


@pytest.mark.parametrize("probe", ["memory", "time"])
@pytest.mark.revbench_cases(of=coupling_step_cases)
def test_step(revbench, case, probe):
    options = {"memory": {"timeline": False}, "time": {"max_seconds": revbench.plan.size.max_seconds}}
    revbench.measure(case, probe, **options[probe])
