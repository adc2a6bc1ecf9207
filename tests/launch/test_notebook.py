"""`revbench.measure` in a kernel of Jupyter's, as a notebook runs it."""

from __future__ import annotations

from typing import Any

import pytest

CELLS = (
    """\
import torch, revbench
from torch import nn

class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))

    def forward(self, x):
        return self.net(x)

def make():
    return revbench.reversible([(Half(), Half()) for _ in range(6)])
""",
    """\
found = revbench.measure(make, "memory", strategy=["stored", "reconstructed"], batch=torch.randn(512, 128))
found
""",
    "found[0].metrics['kept_bytes'] / found[1].metrics['kept_bytes']",
)


@pytest.mark.slow
def test_what_a_cell_defines_is_measured_and_shown() -> None:
    """The classes of a cell live in the kernel's `__main__`, which no worker can import."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (the extra `test` brings it)")
    nbformat: Any = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute()
    _, shown, ratio = ({key: out.data for out in cell.outputs if (key := out.output_type)} for cell in notebook.cells)
    assert list(shown) == ["execute_result"]
    assert "<table" in shown["execute_result"]["text/html"]
    assert shown["execute_result"]["text/plain"].startswith("make stored (float32, batch 512, cpu), memory: ")
    assert float(ratio["execute_result"]["text/plain"]) > 4
