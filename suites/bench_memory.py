"""Peak bytes of a step by phase, for each pair under each strategy; against depth, with operations; leaks; what NVML shows."""

import pytest

from revbench.suite_cases import depth_cases, gpu_cases, leak_cases, step_cases

BUDGET_SECONDS = 65


@pytest.mark.revbench_cases(of=step_cases)
def test_memory(revbench, case):
    revbench.measure(case, "memory", timeline=revbench.repeat == 1)  # every launch would draw the same line


@pytest.mark.revbench_cases(of=depth_cases)
def test_depth(revbench, case):
    revbench.measure(case, "memory", timeline=False)
    revbench.measure(case, "flops")


@pytest.mark.revbench_cases(of=leak_cases)
def test_leak(revbench, case):
    revbench.measure(case, "leak")


@pytest.mark.parametrize("probe", ["nvml", "memory_history"])
@pytest.mark.revbench_cases(of=gpu_cases)
def test_process(revbench, case, probe):
    revbench.measure(case, probe)
