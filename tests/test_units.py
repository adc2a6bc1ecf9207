from __future__ import annotations

import math

import pytest

from revbench.units import human_bytes, human_degrees, human_flops, human_seconds


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (human_bytes(0), "0 B"), (human_bytes(1023), "1023 B"), (human_bytes(37 * 2**20), "37.0 MiB"),
        (human_bytes(2**41), "2048.0 GiB"), (human_seconds(1.5), "1.50 s"), (human_seconds(0.1334), "133 ms"),
        (human_seconds(2e-5), "20.0 µs"), (human_seconds(0), "0 µs"), (human_flops(9.36e9), "9.36 GFLOP"),
        (human_flops(2e12), "2.00 TFLOP"), (human_degrees(0.0), "0°"), (human_degrees(0.1238), "0.124°"),
        (human_degrees(1.4e-13), "1.4e-13°"), (human_degrees(math.nan), "not defined"),
    ],
)  # fmt: skip
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected
