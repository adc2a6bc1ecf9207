from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from revbench.case import Case
from revbench.errors import UserError
from revbench.probes.measurement import Measurement
from revbench.training.batches import MemorySupply
from revbench.training.data import load_images
from revbench.training.loop import mean, measure_training
from revbench.training.ranks import Ranks
from revbench.training.steps import Training
from revbench.workload import build_workload

CASE = Case(model="revnet-38", batch_size=8, training_steps=6, data="digits", image_size=16)


def train(**changes: Any) -> Measurement:
    return train_case(CASE.replace(**changes))


def train_case(case: Case, **options: Any) -> Measurement:
    return measure_training(build_workload(case), progress=lambda _: None, evaluations=2, **options)


def test_stored_and_reconstructed_train_alike_in_float64() -> None:
    stored, ours, null = (
        train(dtype="float64", image_size=8, **c).series["loss"]
        for c in ({}, {"strategy": "reconstructed"}, {"ulp": 1})
    )
    assert len(stored) == 6
    for other in (ours, null):
        assert other == pytest.approx(stored, rel=1e-9)
        assert other != stored


def test_values_and_series() -> None:
    found = train()
    s, m = found.series, found.metrics
    assert s["step"] == [1, 2, 3, 4, 5, 6]
    assert [v is not None for v in s["validation_error"]] == [False, False, True, False, False, True]
    assert m["validation_error"] == s["validation_error"][-1]
    assert m["train_loss"] == s["loss"][-1]
    assert (m["train_images"], m["validation_images"]) == (1438, 359)
    assert train().series["loss"] == s["loss"]  # bitwise the same again


def test_training_learns() -> None:
    found = train(training_steps=60, batch_size=16, strategy="reconstructed")
    assert found.metrics["train_loss"] < 0.93 * sum(found.series["loss"][:6]) / 6


def test_evaluation_leaves_the_model_in_training_mode() -> None:
    workload = build_workload(CASE)
    training = Training(workload, MemorySupply(CASE, load_images("digits", image_size=16)), Ranks())
    before = {n: b.clone() for n, b in workload.model.named_buffers()}
    loss, error = training.evaluate()
    assert math.isfinite(loss)
    assert 0.5 < error <= 1
    assert workload.model.training
    assert all(torch.equal(b, before[n]) for n, b in workload.model.named_buffers())


def test_accumulated_parts_are_the_whole_batch() -> None:
    """Without batch norm, whose statistics are those of a part."""
    case = CASE.replace(model="tests.training.test_loop:plain", dtype="float64", training_steps=3)
    whole, parts = (train_case(case.replace(accumulate=n)) for n in (1, 4))
    assert parts.series["loss"] == pytest.approx(whole.series["loss"], rel=1e-12)
    assert parts.metrics["weights_sha256"] != whole.metrics["weights_sha256"]  # other rounding


def test_a_clipped_step_moves_no_further_than_its_norm() -> None:
    case = CASE.replace(model="tests.training.test_loop:plain", dtype="float64", training_steps=1, clip_norm=1e-3)
    workload = build_workload(case)
    before = torch.cat([p.detach().flatten().clone() for p in workload.model.parameters()])
    measure_training(workload, progress=lambda _: None)
    after = torch.cat([p.detach().flatten() for p in workload.model.parameters()])
    weights = torch.linalg.vector_norm(before)
    assert 0 < torch.linalg.vector_norm(after - before) <= 0.1 * (1e-3 + 2e-4 * weights) * (1 + 1e-9)


def test_drift_along_the_training_leaves_it_alone() -> None:
    plain, watched = train(), train_case(CASE, drift_every=3, drift_items=4)
    assert watched.metrics["weights_sha256"] == plain.metrics["weights_sha256"]
    assert watched.series["loss"] == plain.series["loss"]
    angles = watched.series["angle_degrees"]
    assert [angle is not None for angle in angles] == [True, False, False] * 2
    assert all(angle is None for angle in plain.series["angle_degrees"])


def test_the_digest_tells_trainings_apart() -> None:
    same, other, null = (train(**c).metrics["weights_sha256"] for c in ({}, {"seed": 1}, {"ulp": 1}))
    assert same == train().metrics["weights_sha256"]
    assert len({same, other, null}) == 3


def test_float16_trains_with_a_scaled_loss() -> None:
    found = train(autocast="float16", training_steps=2, batch_size=4, image_size=8)
    assert all(loss is not None and math.isfinite(loss) for loss in found.series["loss"])


def test_fifty_steps_on_real_images_agree_in_float64() -> None:
    stored, ours = (
        train(dtype="float64", training_steps=50, image_size=8, strategy=strategy).series["loss"]
        for strategy in ("stored", "reconstructed")
    )
    assert ours == pytest.approx(stored, abs=1e-6)


def test_a_training_that_diverged_has_no_mean() -> None:
    assert mean([1.0, 2.0]) == 1.5
    assert math.isnan(mean([1.0, None]))


def test_a_batch_goes_through_in_as_many_parts_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASE.replace(model="tests.training.test_loop:plain", batch_size=6, accumulate=4, training_steps=1)
    workload = build_workload(case)
    sizes: list[int] = []
    workload.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    measure_training(workload, progress=lambda _: None, evaluations=1, validation_images=10)
    assert sizes[:4] == [2, 2, 1, 1]
    assert sizes[4:] == [10]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer": "adamw"}, "optimizer=adamw: recipe cifar trains with sgd"),
        ({"world_size": 2}, "world_size=2, but 1 trains here; use torchrun"),
    ],
)
def test_what_can_not_be_trained(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(**changes)


def plain(size: int = 16) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 20), nn.Tanh(), nn.Linear(20, 10))
