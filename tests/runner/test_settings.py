"""A row never claims a setting that was not in force."""

from __future__ import annotations

import pytest

from revbench.case import Case
from revbench.runner.client import WorkerServer
from tests.devices.test_float32 import newer

MEDDLERS = "tests.runner.meddlers"
SHORT = {"min_rounds": 1, "warmup_rounds": 1, "max_seconds": 0.0}


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_a_network_that_sets_things_when_it_is_built(server: WorkerServer, threads: int) -> None:
    found = server.measure([Case(model=f"{MEDDLERS}:network", batch_size=2, threads=threads)], "time", options=SHORT)
    assert found["status"] == "ok", found


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("benchmark", "set cudnn_benchmark to True while it ran, where the case says False"),
        ("products", "set tf32_matmul to True while it ran"),
        pytest.param("bfloat16", "set torch.backends.mkldnn's precision of float32 to less while it ran", marks=newer),
        ("threads", "set threads to 3 while it ran, where the case says 2"),
    ],
)
def test_a_network_that_sets_things_when_it_runs(server: WorkerServer, what: str, words: str) -> None:
    case = Case(model=f"{MEDDLERS}:later(what={what})", batch_size=2, threads=2)
    found = server.measure([case], "time", options=SHORT | {"warmup_rounds": 0})
    assert found["status"] == "crashed"
    assert words in found["message"]
