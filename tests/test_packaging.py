"""The wheel, built from the sdist, is all that a user needs."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from revbench.results.runs import read_run
from tests.conftest import ROOT, run_command


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an sdist of this tree and the wheel made from it, without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_what_is_in_them(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "revbench/py.typed",
        "revbench/suites/bench_time.py",
        "revbench/suites/pytest.ini",
        "revbench/report/render/templates/report.html.j2",
    ):
        assert wanted in names
    assert not [n for n in names if n.startswith(("tests/", "reports/", "docs/"))]
    assert any(n.endswith("licenses/LICENSE") for n in names)
    with tarfile.open(sdist) as archive:
        members = {n.partition("/")[2] for n in archive.getnames()}
    assert {"suites/bench_time.py", "tests/conftest.py", "README.md", "pyproject.toml", "tox.ini", "LICENSE"} <= members


def test_an_installed_wheel_runs_its_suites_in_a_foreign_folder(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=120)
    where = "import revbench; print(revbench.__file__)"
    project = tmp_path / "project"
    project.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", where],
        cwd=project,
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(str(site))
    done = run_command(
        "--benchmark", "-k", "parameters and revnet-38 and not num_classes", "--revbench-output=out", cwd=project,
        PYTHONPATH=str(site),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = read_run(project / "out").rows
    assert row.case.id == "revnet-38,batch_size=1"  # the same from everywhere
    assert not list(site.rglob(".pytest_cache"))
