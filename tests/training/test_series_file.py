"""The series of a training, line by line."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.training.series_file import COLUMNS, SeriesFile
from revbench.workload import build_workload

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=8, training_steps=12, data="digits", image_size=16)


class TestSeries:
    def test_lines_after_the_checkpoint_are_written_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "series" / "x.jsonl"
        with SeriesFile(path) as series:
            for step in range(5):
                series.add({"step": step, "loss": float("nan") if step == 1 else step / 3})
        with path.open("a") as file:
            file.write('[5, 0.1, "torn')
        with SeriesFile(path, keep=3) as series:
            series.add({"step": 3, "loss": 7.0})
            assert series.columns()["loss"] == [0.0, None, 2 / 3, 7.0]
        assert len(path.read_text().splitlines()) == 5

    def test_every_line_is_there_for_a_reader_at_once(self, tmp_path: Path) -> None:
        with SeriesFile(tmp_path / "x.jsonl") as series:
            series.add({"step": 1, "loss": 2.0})
            assert (tmp_path / "x.jsonl").read_text().count("\n") == 2

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
    def test_a_full_disk_is_one_line(self, tmp_path: Path) -> None:
        with SeriesFile(tmp_path / "x.jsonl") as series:
            series._file.close()
            series._file = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115
            with pytest.raises(UserError, match=r"can't write the series .*No space left on device; make room$"):
                series.add({"step": 1, "loss": 2.0})
            with contextlib.suppress(OSError):
                series._file.close()

    @pytest.mark.parametrize("strange", ["5", "[1, 2]", '["a"]', "[]", "{}"])
    def test_strange_lines_end_what_is_kept(self, tmp_path: Path, strange: str) -> None:
        path = tmp_path / "x.jsonl"
        with SeriesFile(path) as series:
            series.add({"step": 1, "loss": 2.0})
        with path.open("a") as file:
            file.write(strange + "\n")
        with SeriesFile(path, keep=2) as series:
            assert series.columns()["loss"] == [2.0]

    def test_a_file_of_another_version_is_begun_anew(self, tmp_path: Path) -> None:
        path = tmp_path / "x.jsonl"
        path.write_text('["step", "something"]\n[1, 2]\n')
        with SeriesFile(path, keep=1) as series:
            assert series.lost == 1
            assert series.columns() == {name: [] for name in COLUMNS}

    def test_a_folder_that_can_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "series").write_text("a file")
        with pytest.raises(UserError, match="can't write the series"):
            SeriesFile(tmp_path / "series" / "x.jsonl")

    def test_writing_costs_less_than_a_hundredth_of_a_step(self, tmp_path: Path) -> None:
        """Side by side with the smallest step that is trained anywhere here."""
        workload = build_workload(CASE.replace(image_size=8))
        inputs, targets = workload.batch()
        workload.step(inputs, targets)
        start = time.perf_counter()
        for _ in range(3):
            workload.step(inputs, targets)
        step = (time.perf_counter() - start) / 3
        with SeriesFile(tmp_path / "x.jsonl") as series:
            start = time.perf_counter()
            for i in range(300):
                series.add(
                    {"step": i, "loss": 0.123456789 * i, "error": 0.5, "learning_rate": 0.1, "step_seconds": 0.1}
                )
            line = (time.perf_counter() - start) / 300
        assert line < 0.01 * step
