from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.case import Case, parse_factory
from revbench.errors import UserError

cases = st.builds(
    Case,
    model=st.sampled_from(["revnet-38", "resnet-50", "package.module:factory"]),
    strategy=st.sampled_from(["stored", "reconstructed", "checkpointed", "recursive"]),
    nonreversible=st.sampled_from(["kept", "recomputed"]),
    dtype=st.sampled_from(["float32", "float64"]),
    batch_size=st.integers(1, 300),
    image_size=st.none() | st.integers(1, 300),
    num_classes=st.none() | st.integers(1, 300),
    data=st.sampled_from(["normal", "digits", "CIFAR-10 (JPEG)"]),
    deterministic=st.booleans(),
    seed=st.integers(0, 5),
)


def test_ids_of_the_first_version_stay() -> None:
    """A field added later has a default, and so changes none of these."""
    assert (
        Case(model="a:b(depth=9)", strategy="reconstructed", kept_half_blocks=1, certify=True).id
        == "a:b(depth=9),strategy=reconstructed,kept_half_blocks=1,certify=True"
    )
    assert Case(model="revnet-38").id == "revnet-38"
    assert (
        Case(model="revnet-38", strategy="reconstructed", batch_size=16).id
        == "revnet-38,strategy=reconstructed,batch_size=16"
    )
    assert (
        Case(
            model="resnet-32",
            nonreversible="recomputed",
            strategy="checkpointed",
            dtype="float64",
            autocast="bfloat16",
            batch_size=1,
            image_size=8,
            num_classes=3,
            data="digits",
            device="cuda",
            optimizer="adamw",
            memory_format="channels_last",
            tf32_matmul=True,
            tf32_convolution=True,
            cudnn_benchmark=True,
            deterministic=True,
            allocator="default",
            threads=2,
            compile=True,
            training_steps=5,
            ulp=1,
            seed=9,
        ).id
        == "resnet-32,strategy=checkpointed,nonreversible=recomputed,dtype=float64,autocast=bfloat16,batch_size=1,"
        "image_size=8,num_classes=3,data=digits,device=cuda,optimizer=adamw,memory_format=channels_last,tf32_matmul=True,"
        "tf32_convolution=True,cudnn_benchmark=True,deterministic=True,allocator=default,threads=2,compile=True,training_steps=5,ulp=1,seed=9"
    )


def test_a_new_field_changes_no_old_id() -> None:
    later = dataclasses.make_dataclass("Later", [("world_size", int, 1)], bases=(Case,), frozen=True, kw_only=True)
    for fields in ({}, {"strategy": "recursive", "seed": 3}):
        assert later(model="revnet-38", **fields).id == Case(model="revnet-38", **fields).id  # type: ignore[arg-type]


@given(cases, cases)
def test_an_id_is_as_good_as_the_case(a: Case, b: Case) -> None:
    assert (a.id == b.id) == (a == b)
    assert hash(a) == hash(Case.from_json(a.to_json()))
    assert Case.from_json(a.to_json()) == a


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"model": "revnet38"}, "revnet-38"),
        ({"strategy": "reconstruct"}, "did you mean 'reconstructed'"),
        ({"dtype": "float16"}, "dtype"),
        ({"autocast": "fp8"}, "autocast"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu:1"}, "device"),
        ({"model": ".a:b"}, "package.module:factory"),
        ({"model": "a:b(c d=2)"}, "no package.module:factory"),
        ({"model": "a:b(c=1,c=2)"}, "gives c twice"),
        ({"kept_half_blocks": 1}, "strategy=reconstructed"),
        ({"strategy": "checkpointed", "certify": True}, "strategy=reconstructed"),
        ({"strategy": "reconstructed", "kept_half_blocks": -1}, "kept_half_blocks"),
        ({"strategy": "torch_budget", "compile": True}, "one graph"),
        ({"model": "a:b", "image_size": 0}, "image_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"image_size": 2}, "image_size"),
        ({"num_classes": 0}, "num_classes"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"memory_format": "nhwc"}, "memory_format"),
        ({"allocator": "jemalloc"}, "allocator"),
        ({"threads": -1}, "threads"),
        ({"strategy": "stored", "nonreversible": "recomputed"}, "must be kept"),
        ({"model": "resnet-32", "strategy": "reconstructed"}, "revnet-38"),
    ],
)
def test_a_wrong_case_gets_one_clear_line(fields: dict[str, object], word: str) -> None:
    with pytest.raises(UserError, match=word) as caught:
        Case(**{"model": "revnet-38", **fields}).check()  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_factory_takes_plain_values() -> None:
    assert parse_factory("a.b:c.d") == ("a.b", "c.d", {})
    assert parse_factory("a:b()") == ("a", "b", {})
    assert parse_factory("a:b(depth=9,width=-1.5,kind=basic,wide=True)") == (
        "a",
        "b",
        {"depth": 9, "width": -1.5, "kind": "basic", "wide": True},
    )


def test_numbers_beyond_any_machine_are_refused() -> None:
    fields = Case(model="revnet-38").to_json()
    with pytest.raises(UserError, match="so large a number"):
        Case.from_json({**fields, "memory_limit_bytes": 10**400})
    with pytest.raises(UserError, match="so large a number"):
        parse_factory(f"a:b(blocks={10**400})")
    assert parse_factory(f"a:b(blocks={'-' * 5000}1)")[2]["blocks"] is not None
