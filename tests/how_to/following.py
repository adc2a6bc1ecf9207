"""A page of docs/how-to as somebody follows it: files as shown, commands as they stand there, what came out beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# A page's blocks: what stands in the line before, the language, the text.
_BLOCK = re.compile(r"([^\n]*)\n\n```(\w+)\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"\d[\d,.]*(?:e-?\d+)?")


class Follower:
    """Somebody in an empty folder, who has revbench.

    Args:
        folder: empty.
        site: where packages are installed.

    Attributes:
        said: what each block of commands printed.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site
        self.said: list[str] = []
        path = os.pathsep.join([str(site), str(ROOT)])
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        bins = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {
            **clean, "PYTHONPATH": path, "PATH": bins, "COLUMNS": "120", "PYTEST_ADDOPTS": "-p no:hypothesispytest",
        }  # fmt: skip

    def follow(self, page: str) -> None:
        """Do what a page says, from its beginning to its end.

        Args:
            page: its file's name, without ending.
        """
        text = (ROOT / "docs" / "how-to" / f"{page}.md").read_text()
        for before, language, block in _BLOCK.findall(text):
            name = re.search(r"`([\w./]+)`(?::$|, and)", before)
            if language == "sh":
                self._run(block)
            elif language == "text":
                self._compare(block)
            elif name is not None:
                self._write(name[1], block, further="Add it to" in before)

    def _write(self, name: str, block: str, *, further: bool) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{file.read_text()}\n{block}" if further else block)

    def _run(self, block: str) -> None:
        if "device cuda" in block or "device=cuda" in block:  # minutes long
            return
        done = subprocess.run(
            ["bash", "-e", "-c", block.replace("pip install .", self._offline())], cwd=self.folder, env=self._environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        self.said.append(done.stdout)

    def _offline(self) -> str:
        """Returns how the package here is installed where nothing can be fetched."""
        options = "--quiet --upgrade --no-deps --no-index --no-build-isolation"
        return f"{sys.executable} -m pip install {options} --target {self.site} ."

    def _compare(self, block: str) -> None:
        said = dict(_shapes(self.said[-1]))
        for shape, line in _shapes(block):
            assert shape in said, f"{line}\n{self.said[-1]}"
            if shape.startswith("memory "):  # counted, and not timed
                assert _numbers(line) == pytest.approx(_numbers(said[shape]), rel=0.05), f"{line}\n{said[shape]}"


def followed(page: str, folder: Path) -> Follower:
    """Somebody who has followed a page, in an empty folder inside this one."""
    (folder / "empty").mkdir()
    follower = Follower(folder / "empty", folder / "site")
    follower.follow(page)
    return follower


def _numbers(line: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(line)]


def _shapes(text: str) -> Iterator[tuple[str, str]]:
    """Returns the lines that are not empty, each behind what it is like whatever its numbers."""
    for line in text.splitlines():
        words = re.sub(r"# [KMG]?i?B\b", "# B", _NUMBER.sub("#", line))
        if words.strip():
            yield " ".join(words.split()), line
