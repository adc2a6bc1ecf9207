from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from revbench.case import Case
from revbench.training.data import load_images
from revbench.training.loop import batches, evaluate, learning_rate, measure_training
from revbench.workload import build_workload

CASE = Case(model="revnet-38", batch_size=8, training_steps=6, data="digits", image_size=16)


def train(**changes: Any) -> Any:
    return measure_training(build_workload(CASE.replace(**changes)), progress=lambda _: None, evaluations=2)


def test_the_schedule_is_the_papers() -> None:
    at = {step: learning_rate(step, 80_000) for step in (0, 39_999, 40_000, 59_999, 60_000, 79_999)}
    assert list(at.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_batches_are_the_same_for_everybody() -> None:
    images = load_images("digits", image_size=16)
    a, b, other = batches(images, 100, 0), batches(images, 100, 0), batches(images, 100, 1)
    for _ in range(20):  # beyond one epoch
        (x, y), (u, v) = next(a), next(b)
        assert torch.equal(x, u)
        assert torch.equal(y, v)
    assert not torch.equal(next(a)[0], next(other)[0])


def test_an_epoch_shows_every_image_once() -> None:
    images = load_images("digits", image_size=16)
    stream = batches(images, len(images.train_labels), 0)
    for _ in range(2):
        assert torch.equal(next(stream)[1].bincount(), images.train_labels.bincount())


def test_stored_and_reconstructed_train_alike_in_float64() -> None:
    stored, ours, null = (
        train(dtype="float64", **c).series["loss"] for c in ({}, {"strategy": "reconstructed"}, {"ulp": 1})
    )
    assert len(stored) == 6
    for other in (ours, null):
        assert other == pytest.approx(stored, rel=1e-9)
        assert other != stored


def test_figures_and_series() -> None:
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
    images = load_images("digits", image_size=16)
    before = {n: b.clone() for n, b in workload.model.named_buffers()}
    loss, error = evaluate(workload, images, lambda x: workload.place(x.double() / 255))  # type: ignore[arg-type]
    assert math.isfinite(loss)
    assert 0.5 < error <= 1
    assert workload.model.training
    assert all(torch.equal(b, before[n]) for n, b in workload.model.named_buffers())
