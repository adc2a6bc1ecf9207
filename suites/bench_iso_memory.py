"""Items a second under a memory limit: each strategy with the largest batch that it fits into it; language models also at growing
depth.

The batch is predicted, then steps of it are timed, and its peak measured. On the CPU all take turns. On a GPU each has a process
of its own, where PyTorch's allocator gives out no more than the limit, and a batch that does not fit after all is made smaller.
"""

import pytest

from revbench.suite_cases import deep_cases, deep_leads, limit_cases, limit_leads

BUDGET_SECONDS = 85


def measure_largest(revbench, cases):
    fits = [(row.case, row.metrics.get("largest_batch_size") or 0) for row in revbench.measure_together(cases, "fit")]
    sized = [case.replace(batch_size=size) for case, size in fits if size]
    seconds = revbench.plan.size.max_seconds
    if not revbench.plan.on_gpu:
        revbench.measure_together(sized, "time", max_seconds=seconds)
        for case in sized:
            revbench.measure(case, "memory", timeline=False)
        return
    for case in sized:
        for _ in range(4):
            timed = revbench.measure(case, "time", max_seconds=seconds)
            if timed.status != "oom":
                revbench.measure(case, "memory", timeline=False)
                break
            if (size := case.batch_size * 19 // 20) < 1:
                break
            case = case.replace(batch_size=size)


@pytest.mark.revbench_cases(of=limit_leads)
def test_iso_memory(revbench, case):
    measure_largest(revbench, limit_cases(case))


@pytest.mark.revbench_cases(of=deep_leads)
def test_depth(revbench, case):
    measure_largest(revbench, deep_cases(case))
