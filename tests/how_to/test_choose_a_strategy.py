"""docs/how-to/choose-a-strategy.md, followed word for word from an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.how_to.following import followed


@pytest.mark.slow  # a minute
def test_a_strategy_is_chosen(tmp_path: Path) -> None:
    follower = followed("choose-a-strategy", tmp_path)
    estimate, drift, *times = follower.said
    assert "largest batch" in estimate
    assert drift.count("safe: no training would see it") == 2
    (timed,) = times  # the suite of the catalogue is a GPU's
    assert timed.count("images a second") == 2
