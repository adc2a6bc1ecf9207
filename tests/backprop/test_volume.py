"""Additive coupling preserves volume: its Jacobian has determinant 1, so its logarithm is 0 to rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from revbench import reversible


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
@pytest.mark.parametrize("blocks", [1, 4, 12])
def test_the_determinant_is_one(strategy: str, blocks: int) -> None:
    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 5))

    chain = reversible([(half(), half()) for _ in range(blocks)]).double()
    chain.strategy = strategy  # type: ignore[assignment]
    x = torch.randn(1, 10, dtype=torch.float64, requires_grad=True)
    y = chain(x)
    rows = []
    for i in range(10):
        (row,) = torch.autograd.grad(chain(x)[0, i], x)
        rows.append(row[0])
    jacobian = torch.stack(rows)
    sign, logarithm = torch.linalg.slogdet(jacobian)
    assert y.shape == x.shape
    assert sign == 1
    assert abs(logarithm) < 1e-12
    assert (jacobian - torch.eye(10, dtype=torch.float64)).abs().max() > 0.01  # it is not the identity


def test_a_coupling_that_scales_does_not_preserve_volume() -> None:
    """That the test above can fail: an affine coupling scales the volume by what it multiplies with."""
    x = torch.randn(4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: torch.cat((v[:2] * 2 + v[2:], v[2:])), x)
    assert torch.linalg.slogdet(jacobian)[1] == pytest.approx(2 * torch.log(torch.tensor(2.0)).item(), rel=1e-6)
