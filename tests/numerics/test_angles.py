"""Angles and errors against mpmath."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revbench.numerics.angles import angle_degrees, relative_error


def exact_angle(u: torch.Tensor, v: torch.Tensor) -> float:
    with mpmath.workdps(60):
        a, b = ([mpmath.mpf(x) for x in t.tolist()] for t in (u, v))
        dot = mpmath.fsum(x * y for x, y in zip(a, b, strict=True))
        norms = mpmath.sqrt(mpmath.fsum(x * x for x in a) * mpmath.fsum(x * x for x in b))
        return float(mpmath.degrees(mpmath.acos(dot / norms)))


@given(st.integers(0, 2**31), st.floats(-16, 0), st.integers(2, 200))
def test_angle_against_mpmath(seed: int, exponent: float, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(n, dtype=torch.float64, generator=generator)
    v = u + 10**exponent * torch.randn(n, dtype=torch.float64, generator=generator)
    assert angle_degrees(u, v) == pytest.approx(exact_angle(u, v), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("degrees", [1e-8, 1e-6, 1e-3, 1.0, 90.0, 179.0, 180.0 - 1e-6])
def test_angles_are_resolved(degrees: float) -> None:
    with mpmath.workdps(40):
        v = torch.tensor(
            [float(mpmath.cos(mpmath.radians(degrees))), float(mpmath.sin(mpmath.radians(degrees)))],
            dtype=torch.float64,
        )
    u = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert angle_degrees(u, v) == pytest.approx(degrees, abs=1e-9 * max(degrees, 1.0), rel=1e-7)
    assert angle_degrees(u * 1e-150, v * 1e150) == pytest.approx(degrees, abs=1e-9 * max(degrees, 1.0), rel=1e-7)


def test_equal_opposite_and_undefined() -> None:
    u = torch.randn(50)
    assert angle_degrees(u, u) == 0.0
    assert angle_degrees(u, 3 * u.double()) < 1e-12
    assert angle_degrees(u, -u) == pytest.approx(180.0)
    assert math.isnan(angle_degrees(u, torch.zeros(50)))
    assert math.isnan(angle_degrees(u, torch.full((50,), torch.nan)))
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
    assert math.isnan(relative_error(u, torch.zeros(50)))
