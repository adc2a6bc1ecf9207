"""The workflows to copy, run step by step in a project that is not ours, with what they need of a CI service stood in for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.launch.test_interleaving import NETWORK, git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")

EXAMPLES = ROOT / "docs" / "examples"
SUITE = """
import pytest
from revbench import Case


@pytest.mark.parametrize("strategy", ["stored", "reconstructed"])
@pytest.mark.parametrize("probe", ["memory", "flops", "drift"])
def test_mine(revbench, strategy, probe):
    if (strategy, probe) != ("stored", "drift"):
        revbench.measure(Case(model="mypackage.models:make", batch_size=4, strategy=strategy), probe)
"""
PROJECT = {
    "pyproject.toml": (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        '[project]\nname = "mypackage"\nversion = "1"\n\n[tool.hatch.build]\ndev-mode-dirs = ["."]\n'
    ),
    "mypackage/__init__.py": "",
    "mypackage/models.py": NETWORK,
    "bench_mine.py": SUITE,
    "tests/test_mine.py": "from mypackage.models import make\n\n\ndef test_it_is_made():\n    assert make()\n",
    ".gitignore": "__pycache__\nbaseline\nreport*\n.benchmarks\n.pytest_cache\n",
}


@pytest.fixture(scope="module")
def bin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment in which pip finds revbench by its name, with the libraries of this one."""
    folder = tmp_path_factory.mktemp("environment")
    for command in (
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "index"), str(ROOT)],
        [sys.executable, "-m", "venv", str(folder / "venv")],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv" / "bin"


@dataclass
class Job:
    """A job of a workflow, run in a project.

    Attributes:
        project: its folder.
        environment: of its steps.
        event: ``push`` or ``pull_request``.
        cache: what the service keeps from one run to the next.
        said: what the steps printed.
    """

    project: Path
    environment: dict[str, str]
    event: str
    cache: Path
    said: list[str] = field(default_factory=list)

    def run(self, workflow: str, *changes: tuple[str, str]) -> int:
        """Runs the steps until one fails, those that always run in any case; returns the exit code of the one that failed."""
        content = (EXAMPLES / workflow).read_text()
        for old, new in changes:
            assert old in content
            content = content.replace(old, new)
        found = yaml.safe_load(content)
        (job,) = found["jobs"].values()
        failed = 0
        for step in job["steps"]:
            condition = step.get("if", "")
            assert condition in ("", "always()", "github.event_name == 'push'", "github.event_name == 'pull_request'")
            wanted = re.findall(r"'(\w+)'", condition)
            if (failed and condition != "always()") or (wanted and wanted != [self.event]):
                continue
            if "uses" in step:
                self._use(step["uses"], step.get("with", {}))
            else:
                failed = self._step(step["run"], found["env"])
        return failed

    def _step(self, command: str, variables: dict[str, str]) -> int:
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", command], cwd=self.project, env={**self.environment, **variables},
            capture_output=True, text=True, check=False, timeout=400,
        )  # fmt: skip
        self.said.append(done.stdout + done.stderr)
        return done.returncode

    def _use(self, action: str, given: dict[str, Any]) -> None:
        name = action.partition("@")[0]
        path = self.project / given.get("path", "")
        if name == "actions/cache/restore":
            if self.cache.is_dir():
                shutil.copytree(self.cache, path)
        elif name == "actions/cache/save":
            shutil.rmtree(self.cache, ignore_errors=True)
            shutil.copytree(path, self.cache)
        else:
            assert name in ("actions/checkout", "actions/setup-python", "actions/upload-artifact")

    @property
    def summary(self) -> str:
        """What GitHub would show of the job."""
        path = Path(self.environment["GITHUB_STEP_SUMMARY"])
        return path.read_text() if path.exists() else ""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    for name, content in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "update-ref", "refs/remotes/origin/main", "main")
    return folder


def job(project: Path, bin_folder: Path, event: str) -> Job:
    (site,) = (bin_folder.parent / "lib").glob("python*/site-packages")
    for path in (*site.glob("*mypackage*"), *site.glob("revbench*")):  # a fresh machine, each time
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON", "REVBENCH_", "PIP_", "GITHUB_"))
    }
    said = project.parent / f"summary-{len(list(project.parent.iterdir()))}.md"
    environment = {
        **kept, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(said),
        "GITHUB_BASE_REF": "main", "GITHUB_EVENT_NAME": event, "PYTEST_ADDOPTS": "-p no:hypothesispytest",
        # What pip would fetch is here: the wheel of revbench by its name, all else in the other environment.
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bin_folder.parent.parent / "index"), "PIP_NO_DEPS": "1",
        "PIP_IGNORE_INSTALLED": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "1",
    }  # fmt: skip
    return Job(project, environment, event, project.parent / "cache")


def begin_anew(project: Path) -> None:
    """As on another machine of the service: only what git has is there."""
    for name in ("report", "report-baseline", "baseline"):
        shutil.rmtree(project / name, ignore_errors=True)


FEWER = ("--revbench-repeats=5", "--revbench-repeats=2")  # to save time


@pytest.mark.slow  # two whole runs
def test_pull_requests_are_held_against_the_last_push(project: Path, bin_folder: Path) -> None:
    pushed = job(project, bin_folder, "push")
    assert pushed.run("guard.yml", FEWER) == 0, pushed.said
    assert (pushed.cache / "rows.jsonl").is_file()
    where = subprocess.run(
        [str(bin_folder / "python"), "-c", "import revbench; print(revbench.__file__)"],
        env=pushed.environment, cwd=project, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(bin_folder.parent)), "revbench was not installed by its name"
    begin_anew(project)
    unchanged = job(project, bin_folder, "pull_request")
    assert unchanged.run("guard.yml", FEWER) == 0, unchanged.said
    assert "No baseline" not in unchanged.summary
    assert "### ✅ gate against baseline" in unchanged.summary
    begin_anew(project)
    (project / "mypackage" / "models.py").write_text(NETWORK.replace("KEPT = 1", "KEPT = 16384"))
    worse = job(project, bin_folder, "pull_request")
    assert worse.run("guard.yml", FEWER) == 1, worse.said
    assert "### ❌ gate against baseline" in worse.summary
    assert "| **worse** |" in worse.summary
    assert (worse.cache / "rows.jsonl").read_text() == (pushed.cache / "rows.jsonl").read_text(), "the baseline stays"


@pytest.mark.slow
def test_a_pull_request_without_a_baseline_says_so(project: Path, bin_folder: Path) -> None:
    alone = job(project, bin_folder, "pull_request")
    assert alone.run("guard.yml", FEWER, ("--benchmark bench_mine.py", "--benchmark -k flops bench_mine.py")) == 0, (
        alone.said
    )
    assert "No baseline is kept, so nothing was gated." in alone.summary


ONLY_MEMORY = ("--probe time --probe memory", "--repeats 1 --probe memory")


@pytest.mark.slow
def test_a_pull_request_is_measured_beside_its_base(project: Path, bin_folder: Path) -> None:
    (project / "mypackage" / "models.py").write_text(NETWORK.replace("KEPT = 1", "KEPT = 16384"))
    worse = job(project, bin_folder, "pull_request")
    assert worse.run("pull-request.yml", ONLY_MEMORY) == 1, worse.said
    assert "### ❌" in worse.summary
    for name in ("gate.json", "gate.md", "report.html", "rows.jsonl"):
        assert (project / "report" / name).is_file()
    assert (project / "report-baseline" / "report.html").is_file()
    begin_anew(project)
    git(project, "checkout", "--quiet", ".")
    unchanged = job(project, bin_folder, "pull_request")
    assert unchanged.run("pull-request.yml", ONLY_MEMORY) == 0, unchanged.said


@pytest.mark.slow
def test_a_pull_request_that_is_slower(project: Path, bin_folder: Path) -> None:
    (project / "mypackage" / "models.py").write_text(NETWORK.replace("WAIT = 0", "WAIT = 3"))
    slower = job(project, bin_folder, "pull_request")
    assert slower.run("pull-request.yml") == 1, slower.said
    assert "step_seconds" in slower.summary


def test_code_that_git_has_no_other_version_of_is_a_mistake(project: Path, bin_folder: Path) -> None:
    copied = job(project, bin_folder, "pull_request")
    assert copied.run("pull-request.yml", ONLY_MEMORY, (" --editable .", " .")) == 2
    assert "is imported from" in copied.said[-1]
    assert "the same code would be compared with itself" in copied.said[-1]
    assert len(copied.said[-1].splitlines()) == 1
