"""A factory that can't be had is named in one line, with the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from revbench.case import Case
from revbench.errors import UserError
from revbench.factories import imported_factory, made_by


def images(blocks: int = 2) -> nn.Module:
    return nn.Linear(blocks, 2)


def wide(width: int, *, depth: int = 3) -> nn.Module:
    return nn.Linear(width, depth)


HERE = "tests.test_factories"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (f"{HERE}:image", f"has no attribute 'image'; did you mean {HERE}:images?"),
        (f"{HERE}:nothing_alike", "has no attribute 'nothing_alike'; give package.module:factory"),
        ("no_such_module:make", f"No module named 'no_such_module' in the current folder {Path.cwd()}, or installed"),
        ("nets.py:make", "names a file; name its module: nets:make"),
        (f"{HERE}:wide", f"missing a required argument: 'width'; name it with them: {HERE}:wide(width=…)"),
        (f"{HERE}:wide(depth=4)", f"missing a required argument: 'width'; name it with them: {HERE}:wide(width=…)"),
        (f"{HERE}:images(deep=4)", "can't be called so: got an unexpected keyword argument 'deep'"),
    ],
)
def test_the_mend_is_named(model: str, said: str) -> None:
    named = Case(model=model).factory
    assert named is not None
    with pytest.raises(UserError) as caught:
        made_by(model, named)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_that_is_there_is_imported_and_called() -> None:
    named = Case(model=f"{HERE}:wide(width=5)").factory
    assert named is not None
    assert imported_factory("", named) is wide
    network, make_batch, _, own_setter = made_by("", named)
    assert isinstance(network, nn.Linear)
    assert (network.in_features, make_batch, own_setter) == (5, None, None)
