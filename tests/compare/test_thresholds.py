"""Thresholds as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from revbench.compare.thresholds import check_patterns, parse_threshold, thresholds_of_project
from revbench.errors import UserError


@pytest.mark.parametrize(
    ("text", "metric", "pattern", "change", "limit"),
    [
        ("peak_bytes > 5.5%", "memory.peak_bytes", "*", 0.055, None),
        ("peak_bytes>5.5%", "memory.peak_bytes", "*", 0.055, None),
        ("memory.peak_bytes @ *revnet* > 2GiB", "memory.peak_bytes", "*revnet*", None, 2.0 * 2**30),
        ("peak_bytes > 1024", "memory.peak_bytes", "*", None, 1024.0),
        ("step_seconds > 10 %", "time.step_seconds", "*", 0.1, None),
        ("step_seconds > 120ms", "time.step_seconds", "*", None, 0.12),
        ("training.step_seconds > 1.5 s", "training.step_seconds", "*", None, 1.5),
        ("time_to_stored > 5%", "time.time_to_stored", "*", 0.05, None),
        ("fit.largest_batch_size < 10%", "fit.largest_batch_size", "*", 0.1, None),
        ("angle_degrees > 0.5", "drift.angle_degrees", "*", None, 0.5),
    ],
)
def test_forms(text: str, metric: str, pattern: str, change: float | None, limit: float | None) -> None:
    found = parse_threshold(text)
    assert f"{found.metric.probe}.{found.metric.name}" == metric
    assert (found.pattern, found.change, found.limit) == (pattern, pytest.approx(change), pytest.approx(limit))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "give METRIC > 5.5%"), ("peak_bytes", "give METRIC > 5.5%"), ("peak_bytes > much", "no size in bytes"),
        ("step_seconds > -3%", "is no bound"), ("step_seconds > nan%", "is no bound"), ("speed > 3%", "metric 'speed'"),
        ("memori.peak_bytes > 3%", "probe 'memori'"), ("peak_bytes < 3%", "gets worse when it grows >"),
        ("largest_batch_size > 3%", "gets worse when it grows <"), ("rounds > 3%", "metric 'rounds'"),
        ("step_seconds > 1e999", "is no bound"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_the_threshold(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_threshold(text)
    assert f"threshold {text!r}" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_matches_nothing_is_a_mistake() -> None:
    one = parse_threshold("peak_bytes @ revnet* > 3%")
    check_patterns([one], [("memory", "revnet-38"), ("time", "other")], "the baseline")
    with pytest.raises(UserError, match=r"is for no case: the baseline has no memory of 'revnet\*'"):
        check_patterns([one], [("memory", "resnet-32"), ("time", "revnet-38")], "the baseline")


def test_of_one_case_of_a_test() -> None:
    case_id = "mine:make,data=a[b]*"
    one = parse_threshold("peak_bytes > 3%").for_case(case_id)
    assert one.is_for(one.metric, case_id)
    assert not one.is_for(one.metric, "mine:make,data=abc")
    check_patterns([one], [], "the baseline")  # the case may be new


def test_of_a_project(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    assert thresholds_of_project(inside) == []
    file = tmp_path / "pyproject.toml"
    file.write_text("[project]\nname = 'x'\n")
    assert thresholds_of_project(inside) == []
    file.write_text('[tool.revbench.gate]\nfail-on = ["peak_bytes > 3%", "step_seconds > 4%"]\n')
    assert [one.change for one in thresholds_of_project(inside)] == [0.03, 0.04]
    for content, words in (
        ("[tool.revbench.gate]\nfail = 3\n", "holds fail; it may hold fail-on"),
        ("[tool.revbench.gate]\nfail-on = 'peak_bytes > 3%'\n", "is no list of strings"),
        ("[tool.revbench]\ngate = 3\n", "holds something else"),
        ("[tool.revbench.gate\n", "pyproject.toml can't be read"),
        ("[tool.revbench.gate]\nfail-on = ['speed > 3%']\n", "metric 'speed'"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=words):
            thresholds_of_project(inside)
