"""Which trainings belong together."""

from __future__ import annotations

import pytest

from revbench.case import Case
from revbench.case.pairs import model_cases, pair_cases, pair_of
from revbench.errors import UserError

BASE = Case(model="", batch_size=8, training_steps=4, data="digits")


@pytest.mark.parametrize("number", ["38", "32"])
def test_a_pair_by_either_number(number: str) -> None:
    assert pair_of(number) == ("resnet-32", "revnet-38")


def test_pairs_that_are_there() -> None:
    assert [pair_of(number)[1] for number in ("110", "164", "104", "101")] == [
        "revnet-110", "revnet-164", "revnet-104", "revnet-104"
    ]  # fmt: skip
    with pytest.raises(UserError, match="no pair '33'; there are 38, "):
        pair_of("33")


def test_the_members_of_a_pair() -> None:
    found = pair_cases(("resnet-32", "revnet-38"), BASE, nulls=2, seeds=range(3, 5))
    assert [(c.model, c.strategy, c.ulp, c.seed) for c in found[:5]] == [
        ("resnet-32", "stored", 0, 3), ("revnet-38", "stored", 0, 3), ("revnet-38", "reconstructed", 0, 3),
        ("revnet-38", "stored", 1, 3), ("revnet-38", "stored", 2, 3),
    ]  # fmt: skip
    assert {c.seed for c in found} == {3, 4}
    assert len({c.id for c in found}) == 10


def test_single_models() -> None:
    found = model_cases(["resnet-32", "revnet-38"], (), BASE, seeds=[0])
    assert [c.strategy for c in found] == ["stored", "reconstructed"]
    with pytest.raises(UserError, match="unknown strategy 'kept'"):
        model_cases(["revnet-38"], ["kept"], BASE, seeds=[0])
