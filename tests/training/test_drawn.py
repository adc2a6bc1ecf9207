"""Training on what a factory draws: tokens by name, several inputs, a class for each pixel, targets that are no classes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.probes.measurement import Measurement
from revbench.training.loop import measure_training
from revbench.training.sources import FACTORY
from revbench.workload import build_workload
from tests.training.test_text import request

HERE = "tests.training.factories"


def train(name: str, **changes: Any) -> Measurement:
    case = Case(model=f"{HERE}:{name}", batch_size=8, training_steps=60, data=FACTORY, **changes)
    return measure_training(build_workload(case), progress=lambda _: None, evaluations=1, data_path=FACTORY)


@pytest.mark.parametrize(("name", "limit"), [("tagger", 0.05), ("segmenter", 0.45)])
def test_a_network_learns_from_what_its_factory_draws(name: str, limit: float) -> None:
    stored, ours = (train(name, strategy=strategy, dtype="float64") for strategy in ("stored", "reconstructed"))
    assert ours.metrics["validation_error"] < limit  # type: ignore[operator]
    assert ours.metrics["train_loss"] < ours.series["loss"][0]  # type: ignore[operator]
    assert ours.metrics["validation_items"] == 40
    assert "train_images" not in ours.metrics
    assert ours.series["loss"] == pytest.approx(stored.series["loss"], rel=1e-9)


def test_a_part_of_a_batch_is_a_part_of_each_of_its_tensors() -> None:
    whole, parts = (train("tagger", dtype="float64", accumulate=count).series["loss"] for count in (1, 4))
    assert parts == pytest.approx(whole, rel=1e-9)


def test_where_there_are_no_classes_there_is_no_error() -> None:
    found = train("regression", learning_rate=0.05)
    assert found.metrics["validation_loss"] < 0.1  # type: ignore[operator]
    assert math.isnan(found.metrics["train_error"])  # type: ignore[arg-type]
    assert found.series["error"] == [None] * 60


def test_a_factory_that_draws_nothing() -> None:
    with pytest.raises(UserError, match="brings no make_batch; let the factory return"):
        train("without_batches")


def test_what_is_drawn_is_of_factories() -> None:
    (case,) = request(models=[f"{HERE}:tagger"], data=FACTORY).cases(1)
    assert (case.data, case.num_classes, case.strategy) == (FACTORY, None, "reconstructed")
    with pytest.raises(UserError, match="revnet-38 is of the catalogue, and factory is what a factory of yours draws"):
        request(models=["revnet-38"], data=FACTORY).cases(1)
