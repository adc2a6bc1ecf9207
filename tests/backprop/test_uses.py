"""Every use that PyTorch allows is right or one clear error; docs/compared.md shows the same uses of other libraries."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from revbench.choices import PEERS
from tests.backprop.uses import ERROR, RIGHT, USES, verdict
from tests.conftest import ROOT

REFUSED = {
    "the output is changed in place before backward",
    "`create_graph=True`, for a gradient penalty",
    "a parameter is changed before backward",
}
COMPARED = (ROOT / "docs" / "compared.md").read_text()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own
@pytest.mark.parametrize("use", USES)
def test_right(use: str) -> None:
    assert verdict("revbench", use) == (ERROR if use in REFUSED else RIGHT)


def rows(text: str = COMPARED) -> dict[str, list[str]]:
    """A table's cells by use."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines if cells[0].strip() != "use"}


def test_the_document_has_every_use() -> None:
    table = rows()
    for use in USES:
        assert table[use][0] == (ERROR if use in REFUSED else RIGHT), use
        assert len(table[use]) == 1 + len(PEERS)


@pytest.mark.slow
def test_the_document_says_of_others_what_they_do() -> None:
    absent = [library for library in PEERS if importlib.util.find_spec(library) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: pip install revbench[peers]")
    command = [sys.executable, "-W", "ignore", "-m", "tests.backprop.uses"]
    made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert rows(made) == {use: rows()[use] for use in USES}
