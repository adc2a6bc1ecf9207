"""Angles and errors against mpmath, and what the probe must find."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import revbench
from revbench.case import Case
from revbench.probes.drift import angle_degrees, measure_drift, relative_error
from revbench.workload import build_workload

QUIET = {"progress": lambda _: None}


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


def test_stored_in_float64_is_the_reference() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, dtype="float64")
    found = measure_drift(build_workload(case), draws=2, **QUIET)  # type: ignore[arg-type]
    assert found.metrics["angle_degrees"] == 0.0
    assert found.metrics["relative_error"] == 0.0


def test_each_dtype_errs_by_its_epsilon() -> None:
    """One linear layer has no mask to flip: the error of its gradient is a few units of rounding."""
    for dtype, epsilon in (("float32", 2.0**-24), ("bfloat16", 2.0**-8)):
        case = Case(model="tests.probes.test_drift:smooth_model", strategy="reconstructed", batch_size=8, dtype=dtype)
        found = measure_drift(build_workload(case), draws=3, **QUIET)  # type: ignore[arg-type]
        errors = found.samples["relative_error"]
        assert len(set(errors)) == 3  # every draw has its own weights and batch
        assert all(0.02 * epsilon < error < 50 * epsilon for error in errors), (dtype, errors)


def test_dropout_draws_the_same_masks_for_the_reference() -> None:
    case = Case(model="tests.probes.test_drift:dropout_model", batch_size=8, dtype="float64")
    assert measure_drift(build_workload(case), draws=2, **QUIET).metrics["angle_degrees"] == 0.0  # type: ignore[arg-type]
    found = measure_drift(build_workload(case.replace(dtype="float32", strategy="reconstructed")), draws=2, **QUIET)  # type: ignore[arg-type]
    assert found.metrics["angle_degrees"] < 1e-3  # type: ignore[operator]


def test_a_gradient_that_is_not_a_number_is_no_good_one() -> None:
    case = Case(model="tests.probes.test_drift:broken_model", batch_size=8)
    found = measure_drift(build_workload(case), draws=1, **QUIET)  # type: ignore[arg-type]
    assert math.isnan(found.metrics["angle_degrees"])  # type: ignore[arg-type]
    assert math.isnan(found.metrics["worst_tensor_angle_degrees"])  # type: ignore[arg-type]
    assert found.metrics["worst_tensor"] == "0.weight"


def test_draws_of_another_launch_are_other_ones() -> None:
    workload = build_workload(Case(model="revnet-38", strategy="reconstructed", image_size=8, batch_size=4))
    both = measure_drift(workload, draws=2, **QUIET)  # type: ignore[arg-type]
    second = measure_drift(workload, draws=1, first_draw=1, **QUIET)  # type: ignore[arg-type]
    assert list(second.samples["angle_degrees"]) == list(both.samples["angle_degrees"])[1:]


def make_batch(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 12, generator=generator), torch.randint(12, (count,), generator=generator)


def chain_of(*last: type[nn.Module]) -> object:
    def half() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), *(layer() for layer in last))

    return revbench.reversible([(half(), half()) for _ in range(3)]), make_batch, nn.functional.cross_entropy


def smooth_model() -> object:
    return chain_of()


def dropout_model() -> object:
    return chain_of(nn.Dropout)


def broken_model() -> object:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 1e9).sqrt()

    return nn.Sequential(nn.Linear(12, 12), Root()), make_batch, lambda out, _: out.sum()


def test_a_certified_case_says_what_the_certificate_says() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, strategy="reconstructed", certify=True)
    m = measure_drift(build_workload(case), draws=2, progress=lambda _: None).metrics
    assert m["compared_activations"] == 2 * 11
    assert 0 <= m["identical_activations"] < 2 * 11  # type: ignore[operator]
    assert "of 11 activations were bit-identical" in str(m["certificate"])
