"""Batches of every shape."""

from __future__ import annotations

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from revbench.observing.nested import map_tensors, tensors_in

Pair = namedtuple("Pair", "x mask")


@dataclass(frozen=True)
class Record:
    x: Any
    words: str


class Encoding(UserDict[str, Any]):
    """As tokenizers return."""


LEAVES = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.builds(torch.ones, st.integers(0, 3)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner), st.tuples(inner, inner), st.builds(Pair, inner, inner),
        st.builds(Record, inner, st.just("w")), st.dictionaries(st.text(max_size=2), inner, max_size=3),
        st.builds(lambda x: OrderedDict(a=x), inner), st.builds(lambda x: Encoding(a=x), inner),
        st.builds(lambda x: defaultdict(list, a=x), inner),
    ),
    max_leaves=12,
)  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Equal, class by class, where tensors are twice as large."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return torch.equal(2 * a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return same(a.x, b.x) if isinstance(a, Record) else bool(a == b)


@given(TREES)
def test_every_tensor_is_changed_and_every_class_kept(tree: Any) -> None:
    before = [x.clone() for x in tensors_in(tree)]
    changed = map_tensors(lambda x: 2 * x, tree)
    assert same(tree, changed)
    assert all(map(torch.equal, before, tensors_in(tree)))  # the first is left alone


def test_default_factories_stay() -> None:
    assert map_tensors(torch.neg, defaultdict(list, a=torch.ones(2)))["b"] == []
