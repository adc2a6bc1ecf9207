"""Items a second under a memory limit: each strategy with the largest batch that it fits into it; language models also at growing
depth.

The batch is predicted, then a step of it is timed, and its peak measured. On a GPU PyTorch's allocator gives out no more than the
limit, and a batch that does not fit after all is made smaller.
"""

import pytest

from revbench.tiers import deep_cases, deep_leads, limit_cases, limit_leads

BUDGET_SECONDS = 85


def measure_largest(revbench, cases):
    for row in revbench.measure_together(cases, "fit"):
        size = row.metrics.get("largest_batch_size") or 0
        for _ in range(4):
            if size < 1:
                break
            timed = revbench.measure(
                row.case.replace(batch_size=size), "time", max_seconds=revbench.plan.size.max_seconds
            )
            if timed.status != "oom":
                revbench.measure(timed.case, "memory", timeline=False)
                break
            size = size * 19 // 20


@pytest.mark.revbench_cases(of=limit_leads)
def test_iso_memory(revbench, case):
    measure_largest(revbench, limit_cases(case))


@pytest.mark.revbench_cases(of=deep_leads)
def test_depth(revbench, case):
    measure_largest(revbench, deep_cases(case))
