"""Chains of reversible blocks: our strategies, PyTorch's own ways and other libraries, side by side.

The libraries are the extra ``peers``; one that is absent is skipped.
"""

import importlib.util

import pytest

from revbench.choices import CHAIN_KINDS, PEERS
from revbench.suite_cases import chain_case, chain_cases, contenders

BUDGET_SECONDS = 25


@pytest.mark.revbench_cases(of=chain_cases)
def test_memory(revbench, case):
    revbench.measure(case, "memory", timeline=False)


@pytest.mark.revbench_cases(of=chain_cases)
def test_flops(revbench, case):
    revbench.measure(case, "flops")


@pytest.mark.parametrize("probe", ["memory", "flops"])
@pytest.mark.parametrize("kind", CHAIN_KINDS)
@pytest.mark.parametrize("library", PEERS)
def test_library(revbench, library, kind, probe):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is of the extra peers")
    options = {"timeline": False} if probe == "memory" else {}
    revbench.measure(chain_case(revbench.plan, kind, library).replace(strategy="reconstructed"), probe, **options)


@pytest.mark.revbench_cases(of=contenders)
def test_time(revbench, case):
    revbench.measure(case, "time", min_rounds=revbench.plan.size.chain_rounds, max_seconds=0)
