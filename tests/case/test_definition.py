from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revbench.case import Case, about
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


def test_numbers_beyond_any_machine_are_refused() -> None:
    fields = Case(model="revnet-38").to_json()
    with pytest.raises(UserError, match="so large a number"):
        Case.from_json({**fields, "memory_limit_bytes": 10**400})


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", "16"), ("batch_size", 0), ("certify", 1), ("dtype", 3), ("learning_rate", float("nan")), ("clip_norm", True),
     ("data", "a\nb"), ("device", "cuda:123456"), ("image_size", True), ("model", "x" * 1001)],
)  # fmt: skip
def test_a_strangers_field_is_refused_by_name(name: str, value: object) -> None:
    fields = Case(model="revnet-38").to_json()
    with pytest.raises(UserError, match=name):
        Case.from_json({**fields, name: value})


def test_every_field_says_what_it_is_and_what_it_may_be() -> None:
    for field in dataclasses.fields(Case):
        assert {"bound", "about"} <= field.metadata.keys()
        sentence = about(field.name)
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert f"{field.name}: {field.metadata['about']}" in (Case.__doc__ or "")
        if field.default is not dataclasses.MISSING:
            field.metadata["bound"].check(field.name, field.default)


def test_the_work_of_a_step_is_counted_in_images_or_tokens() -> None:
    assert (Case(model="revnet-38", batch_size=3).item, Case(model="revnet-38", batch_size=3).items) == ("image", 3)
    assert (Case(model="vit-1m", batch_size=3).item, Case(model="vit-1m", batch_size=3).items) == ("image", 3)
    assert (Case(model="gpt-1m", batch_size=3).item, Case(model="gpt-1m", batch_size=3).items) == ("token", 384)
    short = Case(model="gpt-1m", batch_size=3, sequence_length=10)
    assert short.items == 30
    assert short.id == "gpt-1m,batch_size=3,sequence_length=10"
    other = Case(model="package.module:make", batch_size=3)
    assert (other.item, other.items) == ("item", 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "revnet-38", "sequence_length": 8}, "override of revnet-38 'sequence_length'"),
        ({"model": "gpt-1m", "image_size": 8}, "override of gpt-1m 'image_size'"),
        ({"model": "package.module:make", "sequence_length": 8}, "of the catalogue's language models"),
    ],
)
def test_a_length_is_of_texts_and_a_size_of_images(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Case(**fields).check()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "revnet-38", "coupling": "momentum"}, "'momentum' is written momentum:0.9$"),
        ({"model": "revnet-38", "coupling": "midpoint:0.50"}, "is written midpoint:0.5"),
        ({"model": "revnet-38", "coupling": "midpoint:0x"}, "coupling=midpoint:0x: its number must be above 0"),
        ({"model": "revnet-38", "coupling": "momentum:1"}, "coupling=momentum:1: its number must be between 0 and 1"),
        ({"model": "revnet-38", "coupling": "tides"}, "unknown coupling 'tides'"),
        ({"model": "revnet-38", "coupling": 0.5}, "must be a word"),
        ({"model": "revnet-38", "coupling": "affine:tanh"}, "needs functions that return scale and shift"),
        (
            {"model": "resnet-32", "coupling": "midpoint:0.5"},
            "is of reversible networks; the pair of resnet-32 is revnet-38",
        ),
        (
            {"model": "package:factory", "coupling": "midpoint:0.5"},
            "is of the catalogue's networks; give 'package:factory'",
        ),
    ],
)
def test_couplings_that_a_case_can_not_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Case(**changes).check()


def test_a_coupling_is_part_of_the_network() -> None:
    case = Case(model="revgpt-1m", coupling="midpoint:0.1").check()
    assert case.network is not None
    assert case.network.coupling == "midpoint:0.1"
    assert case.id == "revgpt-1m,coupling=midpoint:0.1"
