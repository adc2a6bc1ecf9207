from __future__ import annotations

import math

import pytest

from revbench.errors import UserError
from revbench.units import (
    human_bytes,
    human_count,
    human_degrees,
    human_flops,
    human_rate,
    human_seconds,
    human_share,
    parse_bytes,
)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (human_bytes(0), "0 B"), (human_bytes(1023), "1023 B"), (human_bytes(37 * 2**20), "37.0 MiB"),
        (human_bytes(2**41), "2048.0 GiB"), (human_seconds(1.5), "1.50 s"), (human_seconds(0.1334), "133 ms"),
        (human_seconds(2e-5), "20.0 µs"), (human_seconds(0), "0 µs"), (human_flops(9.36e9), "9.36 GFLOP"),
        (human_flops(2e12), "2.00 TFLOP"), (human_degrees(0.0), "0°"), (human_degrees(0.1238), "0.124°"),
        (human_degrees(1.4e-13), "1.4e-13°"), (human_degrees(math.nan), "not defined"),
        (human_share(0.0485), "4.85 %"), (human_share(2e-6), "2.0e-06"), (human_share(0.0), "nothing"),
        (human_share(math.nan), "not defined"), (human_count(43_375.2), "43,375"), (human_count(1.71), "1.71"),
        (human_count(4e-10), "none"), (human_rate(60_879.6), "60,880"), (human_rate(1.338), "1.34"), (human_rate(33.33), "33.3"),
        (human_rate(99.97), "100"), (human_rate(3e-5), "3.0e-05"), (human_rate(0.0), "0"),
    ],
)  # fmt: skip
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24GiB", 24 * 2**30), ("24 gib", 24 * 2**30), ("1.5MiB", 3 * 2**19), ("500MB", 500_000_000), ("2 kB", 2000),
        ("1073741824B", 2**30), ("7B", 7),
    ],
)  # fmt: skip
def test_sizes_that_a_person_writes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "banana", "GiB", "24 apples", "-3GiB", "0", "24", "1073741824", "0.0GiB", "1e9", "24GiBs", "nan", "9" * 400],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match=r"give (one|a size) as 24GiB or 500MB"):
        parse_bytes(text)
