"""Names of factories, and of the chains that libraries are compared by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.case import Case, Factory
from revbench.case.chains import Chain, chain_model
from revbench.errors import UserError

words = st.from_regex(r"[a-z]\w{0,8}", fullmatch=True)
values = st.integers(-10, 10**9) | st.booleans() | words | st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
factories = st.builds(
    lambda module, attribute, arguments: Factory(module, attribute).with_arguments(**arguments),
    words, words, st.dictionaries(words, values, max_size=4),
)  # fmt: skip


def test_a_factory_takes_plain_values() -> None:
    assert Factory.parse("a.b:c.d") == Factory("a.b", "c.d")
    assert Factory.parse("a:b()").arguments == {}
    found = Factory.parse("a:b(depth=9,width=-1.5,kind=basic,wide=True)")
    assert (found.module, found.attribute) == ("a", "b")
    assert found.arguments == {"depth": 9, "width": -1.5, "kind": "basic", "wide": True}


@given(factories)
def test_a_name_is_read_as_it_is_written(factory: Factory) -> None:
    assert Factory.parse(str(factory)) == factory
    assert Case(model=str(factory)).factory == factory


def test_an_argument_stays_where_it_stands() -> None:
    found = Factory.parse("a:b(depth=9,kind=basic)")
    assert str(found.with_arguments(depth=40)) == "a:b(depth=40,kind=basic)"
    assert str(found.with_arguments(depth=None)) == "a:b(kind=basic)"
    assert str(found.with_arguments(wide=True)) == "a:b(depth=9,kind=basic,wide=True)"


def test_numbers_beyond_any_machine_are_refused() -> None:
    with pytest.raises(UserError, match="so large a number"):
        Factory.parse(f"a:b(blocks={10**400})")
    assert Factory.parse(f"a:b(blocks={'-' * 5000}1)").arguments["blocks"] is not None


def test_a_chain_is_named_and_recognised() -> None:
    assert chain_model("basic", 9) == "revbench.peers:chain(kind=basic,blocks=9)"
    theirs = chain_model("bottleneck", 3, library="memcnn")
    assert theirs == "revbench.peers:chain(library=memcnn,kind=bottleneck,blocks=3)"
    chain = Chain.of(Case(model=theirs))
    assert chain is not None
    assert (chain.library, chain.kind, chain.blocks, chain.is_foreign, chain.names_library) == (
        "memcnn",
        "bottleneck",
        3,
        True,
        True,
    )
    assert chain.ours() == "revbench.peers:chain(library=revbench,kind=bottleneck,blocks=3)"
    unwatched = Chain.of(Case(model=chain_model("basic", 3, library="revbench", tripwire=False)))
    assert unwatched is not None
    assert not unwatched.has_tripwire
    assert unwatched.ours() == chain_model("basic", 3, library="revbench")
    deep = Chain.of(Case(model=chain_model("basic", 9)))
    assert deep is not None
    assert not deep.names_library
    assert deep.family() == "revbench.peers:chain(kind=basic)"
    assert Chain.of(Case(model="revnet-38")) is None
    assert Chain.of(Case(model="mine:chain(blocks=3)")) is None
