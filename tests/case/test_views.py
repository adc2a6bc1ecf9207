"""Parts of a case: its arithmetic, its back-propagation, its schedule."""

from __future__ import annotations

import pytest
import torch

from revbench.case import Arithmetic, Backpropagation, Case
from revbench.case.views import EPSILONS
from revbench.choices import AUTOCASTS, DTYPES
from revbench.errors import UserError
from revbench.paper.recipes import RECIPES


@pytest.mark.parametrize(
    ("fields", "bits"),
    [
        ({}, 23),
        ({"dtype": "float64"}, 52),
        ({"dtype": "bfloat16"}, 7),
        ({"autocast": "bfloat16"}, 7),
        ({"autocast": "float16"}, 10),
        ({"tf32_matmul": True}, 10),
        ({"tf32_matmul": True, "dtype": "float64"}, 52),
    ],
)
def test_the_unit_of_rounding(fields: dict[str, object], bits: int) -> None:
    arithmetic = Case(model="revnet-38", **fields).arithmetic  # type: ignore[arg-type]
    assert arithmetic.epsilon == 2.0**-bits


def test_epsilons_are_pytorchs() -> None:
    assert set(EPSILONS) == {*DTYPES, *AUTOCASTS} - {"none"}
    for name, epsilon in EPSILONS.items():
        assert epsilon == torch.finfo(getattr(torch, name)).eps


def test_the_stream_is_no_coarser_than_float32_under_autocast() -> None:
    assert Arithmetic("float32", "bfloat16").stream_epsilon == 2.0**-23
    assert Arithmetic("bfloat16", "float16").stream_epsilon == 2.0**-23
    assert Arithmetic("bfloat16").stream_epsilon == 2.0**-7
    assert Arithmetic("float32", tf32=True).stream_epsilon == 2.0**-23


@pytest.mark.parametrize(
    ("arithmetic", "name"),
    [
        (Arithmetic("float32"), "float32"),
        (Arithmetic("float32", tf32=True), "TF32"),
        (Arithmetic("float64", tf32=True), "float64"),
        (Arithmetic("float32", "float16"), "autocast float16"),
    ],
)
def test_the_name_of_an_arithmetic(arithmetic: Arithmetic, name: str) -> None:
    assert arithmetic.name == name
    assert arithmetic.is_reference == (name == "float64")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"strategy": "reconstruct"}, "reconstructed"),
        ({"strategy": "checkpointed", "nonreversible": "dropped"}, "nonreversible"),
        ({"strategy": "stored", "nonreversible": "recomputed"}, "must be kept"),
        ({"strategy": "recursive", "kept_half_blocks": 1}, "strategy=reconstructed"),
        ({"strategy": "stored", "certify": True}, "strategy=reconstructed"),
    ],
)
def test_what_does_not_go_together_can_not_be_made(fields: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Backpropagation(**fields)  # type: ignore[arg-type]


def test_the_first_learning_rate() -> None:
    """The case's own; else of a training the recipe's, of AdamW PyTorch's; and of steps that are only measured 0."""
    measured = Case(model="revnet-38")
    trained = measured.replace(training_steps=100)
    assert measured.schedule.first_learning_rate == 0.0
    assert trained.schedule.first_learning_rate == RECIPES["cifar"].learning_rate
    assert trained.replace(optimizer="adamw").schedule.first_learning_rate == 1e-3
    assert trained.replace(learning_rate=0.3).schedule.learning_rate_at(0) == 0.3
    assert trained.replace(learning_rate=0.3).schedule.learning_rate_at(50) == pytest.approx(0.03)
