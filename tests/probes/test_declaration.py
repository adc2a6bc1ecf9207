"""What a declaration says of rows: their line, and which names they may have."""

from __future__ import annotations

from revbench.probes import Metric, Probe
from revbench.units import COUNT, WORDS


def test_a_line_says_why_there_is_nothing() -> None:
    probe = Probe(
        name="p", function="a:b", sentence="s", metrics=[Metric("n", COUNT), Metric("w", WORDS)], lines=["{n} {w}"]
    )
    assert probe.line({"n": 2, "w": "two"}) == "2 two"
    assert probe.line({"n": None, "n_reason": "hidden", "w": "two"}) == "n_reason: hidden"
    assert probe.line({"n": "a word"}) == "no metric that a line is made of"
    assert probe.declares("n_reason")
    assert not probe.declares("n_q05")
