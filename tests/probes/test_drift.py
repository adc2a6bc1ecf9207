"""What the probe of drift must find."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import revbench
from revbench.case import Case
from revbench.probes.drift import measure_drift
from revbench.workload import build_workload

QUIET = {"progress": lambda _: None}


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


def test_where_a_loss_is_not_finite_first() -> None:
    case = Case(model="tests.probes.test_drift:broken_model", batch_size=8)
    with pytest.raises(
        FloatingPointError, match=r"loss of stored in float64 is nan; the first output .* is that of 1$"
    ):
        measure_drift(build_workload(case), draws=1, **QUIET)  # type: ignore[arg-type]


def test_where_a_gradient_is_not_finite_first() -> None:
    case = Case(model="tests.probes.test_drift:steep_model", batch_size=8)
    with pytest.raises(FloatingPointError, match=r"gradient of stored in float64 .* first that of 0.bias$"):
        measure_drift(build_workload(case), draws=1, **QUIET)  # type: ignore[arg-type]


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


def steep_model() -> object:
    class Root(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * 0).sqrt()

    return nn.Sequential(nn.Linear(12, 12), Root()), make_batch, lambda out, _: out.sum()


def test_a_certified_case_says_what_the_certificate_says() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, strategy="reconstructed", certify=True)
    m = measure_drift(build_workload(case), draws=2, progress=lambda _: None).metrics
    assert m["compared_activations"] == 2 * 11
    assert 0 <= m["identical_activations"] < 2 * 11  # type: ignore[operator]
    assert "of 11 activations were bit-identical" in str(m["certificate"])


def test_stored_is_measured_beside_the_strategy() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4)
    stored = measure_drift(build_workload(case), draws=2, **QUIET)  # type: ignore[arg-type]
    found = measure_drift(build_workload(case.replace(strategy="reconstructed")), draws=2, **QUIET)  # type: ignore[arg-type]
    assert found.samples["stored_angle_degrees"] == stored.samples["angle_degrees"]
    assert found.samples["smooth_stored_relative_error"] == stored.samples["smooth_relative_error"]
    ratios = [
        a / b for a, b in zip(found.samples["relative_error"], found.samples["stored_relative_error"], strict=True)
    ]
    assert list(found.samples["amplification"]) == pytest.approx(ratios)
    assert found.metrics["verdict"] == "safe"
    assert stored.metrics["verdict"] == "reference"
    assert stored.metrics["activation_error_reason"] == "stored reconstructs no activation"
    for metrics in (found.metrics, stored.metrics):
        for name, value in metrics.items():
            assert (
                value is not None
                or f"{name}_reason" in metrics
                or name in ("trace", "breakdown_block", "casts", "coarse_casts", "own_functions", "blocks_left_out")
            ), name


def test_float64_errs_in_its_own_epsilons() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, dtype="float64", strategy="reconstructed")
    m = measure_drift(build_workload(case), draws=2, **QUIET).metrics  # type: ignore[arg-type]
    assert 0.5 < m["error_epsilons"] < 100  # type: ignore[operator]
    assert m["amplification"] is None
    assert m["amplification_reason"] == "stored in float64 is the reference itself"


def test_the_series_has_a_line_for_each_block_and_tensor() -> None:
    case = Case(model="revnet-38", image_size=8, batch_size=4, strategy="reconstructed")
    workload = build_workload(case)
    columns = measure_drift(workload, draws=1, **QUIET).series  # type: ignore[arg-type]
    blocks = [name for level, name in zip(columns["level"], columns["name"], strict=True) if level == "block"]
    assert blocks == ["stem", *(f"trunk.{i}" for i in range(9)), "head"]
    tensors = [name for level, name in zip(columns["level"], columns["name"], strict=True) if level == "tensor"]
    assert tensors == [name for name, _ in workload.model.named_parameters()]
    activations = dict(zip(columns["name"], columns["activation_error"], strict=True))
    assert [name for name in blocks if activations[name]] == [f"trunk.{i}" for i in (0, 1, 2, 4, 5, 7, 8)]


def test_autocast_float16_states_its_loss_scale() -> None:
    case = Case(model="tests.probes.test_drift:smooth_model", strategy="reconstructed", batch_size=8)
    m = measure_drift(build_workload(case.replace(autocast="float16")), draws=1, **QUIET).metrics  # type: ignore[arg-type]
    assert m["loss_scale"] == 2.0**16
    assert 0.02 * 2**-11 < m["relative_error"] < 50 * 2**-11  # type: ignore[operator]
    assert m["activation_error"] < 50 * 2**-24  # type: ignore[operator]  # the stream stays float32
