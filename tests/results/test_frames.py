"""Runs as pandas frames."""

from __future__ import annotations

from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.results.frames import load_runs
from tests.results.rows import make_row, write_run


def test_load_runs(tmp_path: Path) -> None:
    write_run(tmp_path / "run", make_row(repeat=1), make_row(repeat=2))
    frame = load_runs(tmp_path / "run")
    assert list(frame["repeat"]) == [1, 2]
    assert list(frame["step_seconds"]) == [0.5, 0.5]
    assert set(frame["case_id"]) == {Case(model="revnet-38", strategy="reconstructed", batch_size=16).id}
    with pytest.raises(UserError):
        load_runs(tmp_path)
