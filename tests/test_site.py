"""The site of the documents builds, warnings being errors, and has what a reader looks for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import revbench

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None,
    reason="mkdocs is not installed; it is of the extra docs",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)], cwd=ROOT,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_of_the_documents_is_there(site: Path) -> None:
    pages = {path.parent.name for path in site.rglob("index.html")}
    assert {path.stem for path in (ROOT / "docs").rglob("*.md")} <= pages


def test_every_public_name_is_documented(site: Path) -> None:
    api = (site / "api" / "index.html").read_text()
    homes = {"doctor": "examine"}
    for name in set(revbench.__all__) - {"__version__"}:
        assert re.search(rf'id="revbench\.[\w.]+\.{homes.get(name, name)}"', api), name


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)=["'](https?:[^"']+)""", page.read_text())
        assert [url for url in fetched if "canonical" not in url] == [], page


def test_pictures_of_reference_runs_come_along(site: Path) -> None:
    index = (site / "index.html").read_text()
    (picture,) = set(re.findall(r'src="(pictures/[^"]+)"', index))
    assert (site / picture).is_file()
