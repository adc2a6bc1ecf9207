"""The oracle itself tells a wrong gradient from a right one."""

from __future__ import annotations

import pytest
from torch import Tensor

from revbench import reversible
from tests.backprop.oracle import Linear, assert_as_plain, measured, once, plain, three


class Own(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_the_oracle_itself() -> None:
    with pytest.raises(AssertionError, match="stored"):
        assert_as_plain(three(Own), lambda call, chain: {"wrong": call is chain})
    reference = reversible(three(Own)()).double()
    found = measured(reference, lambda x: plain(reference, x), once)
    assert any(name.startswith("gradient of blocks") for name in found)
