"""From what is asked for to cases."""

from __future__ import annotations

from typing import Any

import pytest

from revbench.errors import UserError
from revbench.launch import request
from revbench.launch.request import Request, count_steps
from revbench.paper.recipes import RECIPES


def asked(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "models": ("revnet-38",), "pair": None, "strategies": (), "nulls": 1, "seed": 0, "seeds": 1, "recipe": None, "steps": 5,
        "epochs": None, "batch_size": None, "data": "digits", "images": None, "fields": {"sync_batch_norm": False},
        "options": {"loaders": None, "drift_every": 0},
    }  # fmt: skip
    return Request(**{**fields, **changes})


def test_what_is_not_asked_for_is_the_recipes() -> None:
    (case,) = asked(steps=None).cases(1)
    assert (case.recipe, case.batch_size, case.training_steps, case.data_images) == ("cifar", 100, 80_000, 0)
    assert (case.num_classes, case.world_size) == (None, 1)
    (case,) = asked(models=("revnet-104",), data="imagenet", steps=None).cases(4)
    assert (case.recipe, case.batch_size, case.training_steps, case.world_size) == ("imagenet", 256, 600_000, 4)
    assert asked(images=500).cases(1)[0].data_images == 500
    assert asked(images=10**6).cases(1)[0].data_images == 0  # there are no more than all


@pytest.mark.parametrize(
    ("model", "recipe", "classes", "expected"),
    [
        ("revnet-38", "cifar", 10, None), ("revnet-38", "cifar", 7, 7), ("revnet-38", "imagenet", 1000, 1000),
        ("revnet-104", "cifar", 10, 10), ("revnet-104", "imagenet", 1000, None), ("a.b:c", "cifar", 10, None),
        ("a.b:c", "imagenet", 1000, 1000),
    ],
)  # fmt: skip
def test_a_network_has_as_many_outputs_as_the_data_has_classes(
    monkeypatch: pytest.MonkeyPatch, model: str, recipe: str, classes: int, expected: int | None
) -> None:
    monkeypatch.setattr(request, "count_classes", lambda source: classes)
    (case,) = asked(models=(model,), recipe=recipe, data="cifar10").cases(1)
    assert case.num_classes == expected


def test_steps_and_epochs() -> None:
    cifar = RECIPES["cifar"]
    assert count_steps(cifar, None, None, 50_000, 100) == 80_000
    assert count_steps(RECIPES["imagenet"], None, None, 50_000, 100) == 600_000
    assert count_steps(cifar, 7, None, 50_000, 100) == 7
    assert count_steps(cifar, None, 2.5, 50_000, 100) == 1250
    assert count_steps(cifar, None, 0.001, 100, 100) == 1
    with pytest.raises(UserError, match="not both"):
        count_steps(cifar, 1, 1.0, 100, 10)
    with pytest.raises(UserError, match="--epochs=nan must be a number of more than 0"):
        count_steps(cifar, None, float("nan"), 100, 10)
    with pytest.raises(UserError, match="--epochs=inf must be a number of more than 0"):
        count_steps(cifar, None, float("inf"), 100, 10)


@pytest.mark.parametrize(
    ("changes", "world_size", "said"),
    [
        ({"models": ("revnet-38", "revnet-104")}, 1, "trained by different recipes; give --recipe cifar or --recipe imagenet"),
        ({"recipe": "cifer"}, 1, "unknown recipe 'cifer'; did you mean 'cifar'"),
        ({"recipe": "imagenet"}, 1, "the digits are none; give --data PATH or --recipe cifar"),
        ({"seeds": -3}, 1, "--seeds=-3 must be at least 1"),
        ({"batch_size": 0}, 1, "batch_size=0 must be an integer of at least 1"),
        ({"batch_size": 5}, 2, "can't be split evenly among 2 processes; give a multiple of 2"),
        ({"fields": {"sync_batch_norm": True}}, 1, "sync_batch_norm is of several processes"),
        ({"fields": {"sync_batch_norm": True, "compile": True}}, 2, "sync_batch_norm and compile: nobody has shown"),
        (
            {"fields": {"sync_batch_norm": True}, "options": {"drift_every": 2}}, 2,
            "--drift-every measures in one process alone; omit it or --sync-batch-norm",
        ),
        ({"fields": {"sync_batch_norm": False, "accumulate": 60}}, 2, "accumulate=60 is more than the 50 items"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_for(changes: dict[str, Any], world_size: int, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        asked(**changes).cases(world_size)
    assert "\n" not in str(caught.value)
