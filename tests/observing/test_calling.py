"""How a network is called: by name, in order, or with one thing, as its `forward` says."""

from __future__ import annotations

from collections import UserDict, namedtuple
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.observing.calling import call

ONE, TWO = torch.ones(2), torch.full((2,), 2.0)
Pair = namedtuple("Pair", "a b")


class ByName(nn.Module):
    """As networks of `transformers`: every argument has a default."""

    def forward(self, ids: Any = None, mask: Any = None, *, scale: float = 1.0) -> Any:
        return ids, mask, scale


class OneBatch(nn.Module):
    def forward(self, batch: Any) -> Any:
        return batch


class Two(nn.Module):
    def forward(self, a: Any, b: Any, c: Any = None) -> Any:
        return a, b, c


class Anything(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


class WithOthers(nn.Module):
    def forward(self, a: Any, b: Any, **kwargs: Any) -> Any:
        return a, b, kwargs


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        (ByName(), {"ids": 1, "mask": 2}, (1, 2, 1.0)),
        (ByName(), UserDict({"mask": 2}), (None, 2, 1.0)),
        (ByName(), {"ids": 1, "other": 2}, ({"ids": 1, "other": 2}, None, 1.0)),  # a name that it does not have
        (ByName(), {}, ({}, None, 1.0)),
        (OneBatch(), {"ids": 1}, {"ids": 1}),
        (OneBatch(), (1, 2), (1, 2)),
        (Two(), (1, 2), (1, 2, None)),
        (Two(), {"a": 1, "b": 2}, (1, 2, None)),
        (Two(), Pair(1, 2), None),  # a class of somebody's own is one thing
        (Anything(), (1, 2), (((1, 2),), {})),
        (Anything(), {"a": 1}, (({"a": 1},), {})),
        (WithOthers(), (1, 2), (1, 2, {})),
    ],
)
def test_how_a_network_is_called(model: nn.Module, inputs: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(TypeError, match="missing 1 required"):
            call(model, inputs)
    else:
        assert call(model, inputs) == expected


def test_a_pair_of_halves_stays_one() -> None:
    chain = revbench.reversible([(nn.Linear(2, 2), nn.Linear(2, 2))])
    found = call(chain, (ONE[None], TWO[None]))
    assert isinstance(found, tuple)
    assert all(isinstance(half, Tensor) for half in found)
