"""Runs of many cases and many draws."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from revbench.compare import compare_folders
from revbench.report import write_report
from revbench.report.document import MOST_FIGURES
from revbench.report.long_tables import MOST_ROWS
from tests.report.reports import BASE, memory, timed, timed_row
from tests.results.rows import Columns, make_row, write_run


@pytest.mark.slow
def test_a_run_of_many_cases_has_the_first_figures_and_whole_tables_beside_it(tmp_path: Path) -> None:
    """Its page does not grow with it."""
    strategies = ("stored", "reconstructed", "checkpointed")
    cases = [BASE.replace(batch_size=batch, strategy=name) for batch in range(1, 151) for name in strategies]
    levels = {**memory(1 << 20), "live_bytes_at_rss_peak": 1 << 20, "allocated_bytes_at_rss_peak": 2 << 20}
    columns: Columns = {"operation": [1, 2], "live_bytes": [5, 9], "phase": ["forward", "backward"]}
    draws = {"angle_degrees": [0.1, 0.2], "relative_error": [1e-3, 2e-3]}
    rows = [make_row(case=case, metrics=timed(0.1 + case.batch_size)) for case in cases]
    timelines = [(make_row(case=case, probe="memory", metrics=levels, samples={}), columns) for case in cases]
    rows += [
        make_row(case=case, probe="drift", metrics={"angle_degrees": 0.1, "draws": 2}, samples=draws) for case in cases
    ]
    folder = write_run(tmp_path / "run", *rows, *timelines)
    written = write_report([folder], folder)
    assert (folder / "report.pdf") in written.paths
    assert len(list((folder / "figures").iterdir())) <= 4 * MOST_FIGURES
    assert (folder / "report.html").stat().st_size < 2 << 20
    page = (folder / "report.md").read_text()
    assert "These are the first 8 of such figures; the tables have all cases." in page
    assert f"The first {MOST_ROWS} of 450 rows; all of them are in tables/" in page
    cut = set(re.findall(r"all of them are in tables/([a-z0-9-]+\.csv)", page))
    assert len(cut) >= 3
    assert all(len((folder / "tables" / name).read_text().splitlines()) == 451 for name in cut)


@pytest.mark.slow
def test_a_row_of_very_many_draws_takes_little_memory(tmp_path: Path) -> None:
    """100,000 draws of 30 quantities are 24 MB of numbers."""
    count = 100_000
    draws = [1 + i % 977 / 977 for i in range(count)]
    metrics = {"angle_degrees": 1.0, "relative_error": 1e-3, "draws": count}
    names = (
        "angle_degrees",
        "relative_error",
        "smooth_amplification",
        "significant_digits",
        *(f"other_{i}" for i in range(26)),
    )
    case = BASE.replace(strategy="reconstructed")
    write_run(
        tmp_path / "run", make_row(case=case, probe="drift", metrics=metrics, samples=dict.fromkeys(names, draws))
    )
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    tracemalloc.start()
    write_report([tmp_path / "run"], tmp_path / "report")
    compare_folders(tmp_path / "run", tmp_path / "again")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500 << 20


@pytest.mark.slow
def test_ten_thousand_rows_take_little_memory(tmp_path: Path) -> None:
    """1.5 GiB at most, in a process of its own, and no picture for each."""
    strategies = ("stored", "reconstructed", "checkpointed", "recursive")
    cases = [BASE.replace(batch_size=batch, strategy=name) for batch in range(1, 168) for name in strategies]
    rows = [
        row for case in cases for repeat in range(1, 6)
        for row in (
            timed_row(case, 0.1 + case.batch_size, repeat=repeat),
            make_row(case=case, probe="memory", repeat=repeat, metrics=memory(1 << 20), samples={}),
            make_row(
                case=case, probe="drift", repeat=repeat, metrics={"angle_degrees": 0.1, "draws": 2},
                samples={"angle_degrees": [0.1, 0.2], "relative_error": [1e-3, 2e-3]},
            ),
        )
    ]  # fmt: skip
    assert len(rows) >= 10_000
    folder = write_run(tmp_path / "run", *rows)
    program = (
        "import resource, sys; from pathlib import Path; from revbench.report import write_report; run = Path(sys.argv[1]);"
        " write_report([run], run); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    assert int(done.stdout) << 10 < 1.5 * 2**30
    assert (folder / "report.html").stat().st_size < 3 << 20
    assert len(list((folder / "figures").glob("*.svg"))) < 20
