"""docs/how-to/compare-two-gpus.md, followed word for word in what a clone has."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ROOT
from tests.how_to.following import Follower


def test_two_gpus_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "reference").symlink_to(ROOT / "reports" / "reference")
    follower = Follower(folder, tmp_path / "site")
    follower.follow("compare-two-gpus")
    text = (folder / "both" / "report.md").read_text()
    assert "## Machines side by side" in text
    assert "| RevNet-104 | H200 | reconstructed |" in text


def test_every_page_is_followed_somewhere() -> None:
    files = [*(ROOT / "tests" / "how_to").glob("*.py"), ROOT / "tests" / "test_extensions.py"]
    named = "".join(file.read_text() for file in files)
    pages = [page.stem for page in (ROOT / "docs" / "how-to").glob("*.md")]
    assert pages
    assert [page for page in pages if f'"{page}"' not in named] == []
