"""``benchmark.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path

from revbench.results.benchmark_json import write_benchmark_json
from revbench.results.runs import read_run
from tests.results.rows import ENVIRONMENT, make_row, write_run


def test_benchmark_json_is_what_pytest_benchmark_would_have_written(tmp_path: Path) -> None:
    write_run(tmp_path, make_row(repeat=1), make_row(repeat=2))
    write_benchmark_json(read_run(tmp_path))
    document = json.loads((tmp_path / "benchmark.json").read_text())
    first, second = document["benchmarks"]
    assert first["name"] == "revnet-38,strategy=reconstructed,batch_size=16"
    assert second["fullname"] == "time::revnet-38,strategy=reconstructed,batch_size=16 (launch 2)"
    assert first["stats"]["data"] == [0.5, 0.25, 1.0]
    assert first["stats"]["median"] == 0.5
    assert first["stats"]["rounds"] == 3
    assert math.isclose(first["stats"]["mean"], 1.75 / 3)
    assert document["machine_info"]["environment_id"] == ENVIRONMENT["environment_id"]
