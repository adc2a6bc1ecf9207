"""Joules of a training step of each RevNet, stored and reconstructed; on a GPU."""

import pytest

from revbench.suite_cases import gpu_cases


@pytest.mark.revbench_cases(of=gpu_cases)
def test_energy(revbench, case):
    revbench.measure(case, "energy")
