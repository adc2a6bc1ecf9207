"""What a line of the terminal calls a case."""

from __future__ import annotations

from typing import Any

import pytest

from revbench.case import Case
from revbench.case.labels import describe


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "revnet-38 stored float32 batch 16"),
        ({"strategy": "reconstructed", "dtype": "bfloat16"}, "revnet-38 reconstructed bfloat16 batch 16"),
        ({"autocast": "bfloat16"}, "revnet-38 stored autocast bfloat16 batch 16"),
        ({"autocast": "float16", "compile": True}, "revnet-38 stored+compiled autocast float16 batch 16"),
        ({"tf32_matmul": True, "device": "cuda"}, "revnet-38 stored TF32 batch 16"),
        (
            {"strategy": "reconstructed", "nonreversible": "recomputed", "certify": True, "memory_limit_bytes": 2**30},
            "revnet-38 reconstructed+recomputed+certified float32 batch 16 in 1.0 GiB",
        ),
    ],
)
def test_a_line_names_what_is_unusual(fields: dict[str, Any], words: str) -> None:
    assert describe(Case(model="revnet-38", batch_size=16, **fields)) == words
