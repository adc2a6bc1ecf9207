"""`pytest --benchmark` without paths: the built-in suites, whatever project it is called in.

A project's ``addopts``, ``testpaths``, conftest files and warning filters are read before any plugin can speak. So
the built-in suites run in a pytest session of their own, with their own ini file and root, and from the
user's settings take the command line only.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import revbench
from revbench.errors import UserError


def suites_folder() -> Path:
    """Returns the built-in suites: beside the package when installed, in the checkout otherwise."""
    package = Path(revbench.__file__).resolve().parent
    for folder in (package / "suites", package.parent / "suites"):
        if (folder / "pytest.ini").is_file():
            return folder
    raise UserError(f"the built-in suites are missing beside {package.name}; install revbench again, or name your own")


def run_suites(arguments: Sequence[str]) -> int:
    """Run the built-in suites in a session of their own.

    Args:
        arguments: the user's command line, ``--benchmark`` among them.

    Returns:
        pytest's exit code.
    """
    import pytest

    suites = suites_folder()
    ours = [
        f"--config-file={suites / 'pytest.ini'}", f"--rootdir={suites}", "--noconftest", "--import-mode=importlib",
        "-p", "no:cacheprovider", "-q",
    ]  # fmt: skip
    inherited = os.environ.pop("PYTEST_ADDOPTS", None)
    storage = Path(".benchmarks")  # pytest-benchmark makes it whether or not anything is saved
    there = storage.exists()
    try:
        # The folder comes first: an option without a value, as `--benchmark-compare`, would take it for one.
        return int(pytest.main([*ours, str(suites), *arguments]))
    finally:
        if not there:
            with contextlib.suppress(OSError):
                storage.rmdir()
        if inherited is not None:
            os.environ["PYTEST_ADDOPTS"] = inherited
