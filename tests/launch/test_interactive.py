"""`revbench.measure`: whatever somebody has at hand, and what a notebook shows of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import revbench
from revbench.errors import UserError
from revbench.launch.interactive import Measurements
from revbench.results.runs import read_run
from tests.report.reports import EVIL, Page
from tests.results.rows import make_row, write_run

WIDTH = 8


def net() -> nn.Module:
    """A network that no worker can import: this module is none of a package that is on its path."""
    return nn.Sequential(revbench.reversible([(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)) for _ in range(3)]))


def test_a_name_under_several_strategies(tmp_path: Path) -> None:
    found = revbench.measure(
        "revnet-38", "memory", strategy=["stored", "reconstructed"], batch_size=2, image_size=8, output=tmp_path / "run"
    )
    assert [row.case.strategy for row in found] == ["stored", "reconstructed"]
    assert found[0].metrics["peak_bytes"] > found[1].metrics["peak_bytes"]  # type: ignore[operator]
    assert [row.key for row in read_run(tmp_path / "run").rows] == [row.key for row in found[:]]
    lines = repr(found).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("RevNet-38 reconstructed (float32, batch 2, 8×8, cpu), memory: ")
    frame = found.to_frame()
    assert list(frame.strategy) == ["stored", "reconstructed"]
    assert list(frame.peak_bytes) == [row.metrics["peak_bytes"] for row in found]
    (table,) = [one for one in found.tables() if one.name == "peak-memory"]
    assert [row[:2] for row in table.rows] == [["RevNet-38", "stored"], ["RevNet-38", "reconstructed"]]
    assert "<td" in found._repr_html_()


def test_what_stands_in_a_cell_is_measured_by_value(tmp_path: Path) -> None:
    """A function and a module of ``__main__``, which no other process can import, with what they refer to."""
    cell = """
import revbench, torch
from torch import nn

width = 8
class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(width, width)
    def forward(self, x):
        return self.linear(x).tanh()

def mine():
    return nn.Sequential(revbench.reversible([(Half(), Half()) for _ in range(6)]))

found = revbench.measure(mine, ["memory", "time"], strategy=["stored", "reconstructed"], batch=torch.randn(64, 2 * width),
                         options={"time": {"min_rounds": 2, "max_seconds": 0}})
assert [row.status for row in found] == ["ok"] * 4, found
assert found[0].metrics["activation_peak_bytes"] > found[1].metrics["activation_peak_bytes"]
assert found[2].metrics["session"] == found[3].metrics["session"]
print(repr(found).splitlines()[0])
module = mine()
(one,) = revbench.measure(module, "memory", batch=(torch.randn(5, 2 * width), torch.randn(5, 2 * width)),
                          loss=nn.functional.mse_loss)
assert (one.status, one.case.strategy, one.case.batch_size) == ("ok", "reconstructed", 5), one
"""
    script = tmp_path / "cell.py"
    script.write_text(f"if __name__ == '__main__':\n{chr(10).join('    ' + line for line in cell.splitlines())}\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine stored (float32, batch 64, cpu), memory: ")


def test_a_module_keeps_its_weights_and_its_batch() -> None:
    """In a fresh process the loss is what it is here."""
    torch.manual_seed(0)
    module = net()
    batch = torch.randn(4, 2 * WIDTH)
    (row,) = revbench.measure(module, "drift", batch=batch, strategy="reconstructed")
    assert row.status == "ok", row.message
    module[0].strategy = "stored"
    (loss,) = torch.autograd.grad(module(batch).square().mean(), [module[0].blocks[0].f.weight])
    assert loss.isfinite().all()
    assert row.metrics["relative_error"] < 1e-5  # type: ignore[operator]


def test_rows_of_strangers_stay_text_in_a_cell(tmp_path: Path) -> None:
    run = write_run(tmp_path, make_row(status="crashed", metrics={}, samples={}, message=EVIL))
    page = Page()
    page.feed(Measurements(read_run(run))._repr_html_())
    assert not {"script", "img", "b"} & set(page.tags)
    assert repr(Measurements(read_run(run))).count("\n") == 0


@pytest.mark.parametrize(
    ("what", "settings", "said"),
    [
        (3, {}, "not a int"),
        ("revnet-38", {"batchsize": 3}, "batchsize"),
        ("revnet-38", {"batch": torch.zeros(1)}, "batch and loss are of a module"),
        ("revnet-38", {"strategy": "stord"}, "strategy"),
        ("revnet-38", {"probes": "tme"}, "tme"),
        (net, {"batch": torch.zeros(3, 16), "batch_size": 4}, "has 3 items"),
        (lambda: "net", {}, "returned str, not a module"),
        (net(), {"probes": "drift", "batch": torch.zeros(3, 16), "options": {"drift": {"draws": 6}}}, "has one draw"),
        ("revnet-38", {"options": {"tiem": {}}}, "tiem"),
    ],
)
def test_mistakes_are_one_line(what: object, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as error:
        revbench.measure(what, **{"probes": "memory", **settings})  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_can_not_be_written_down_is_said() -> None:
    lock = threading.Lock()
    with pytest.raises(UserError, match="can't be handed to the process that measures it"):
        revbench.measure(lambda: lock.locked(), "memory")


def test_a_network_of_another_session_is_gone(tmp_path: Path) -> None:
    name = "revbench.by_value:load(name=mine,digest=x0123456789abcdef)"
    with pytest.raises(UserError, match="was of a notebook and is gone with it"):
        revbench.measure(name, "memory")
