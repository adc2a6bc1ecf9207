"""Two versions of a project side by side, as git has them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from revbench.launch.worktree import worktree_of
from revbench.results.runs import read_run
from revbench.runner.other_tree import OtherTree
from tests.conftest import ROOT, Cli, git, run_command

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")

NETWORK = """
import torch
from torch import nn
import revbench

WAIT = 0
KEPT = 1


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 128))

    def forward(self, x):
        for _ in range(WAIT):
            self.layers(x.detach())
        self.kept = torch.ones(KEPT)
        return self.layers(x)


def make():
    chain = revbench.reversible([(Half(), Half()) for _ in range(3)])

    def batch(count, generator):
        return torch.randn(count, 256, generator=generator), torch.randn(count, 256, generator=generator)

    return chain, batch, nn.functional.mse_loss
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project under git, in the folder that commands run in."""
    folder = tmp_path
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "mine.py").write_text(NETWORK)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    git(folder, "tag", "good")
    return folder


RUN = ("run", "nets.mine:make", "--batch-size", "256", "--strategy", "reconstructed", "--device", "cpu")


@pytest.mark.slow  # five launches of both, a minute and more
def test_a_planted_slow_down_and_a_planted_tensor_are_found(project: Path) -> None:
    (project / "nets" / "mine.py").write_text(
        NETWORK.replace("WAIT = 0", "WAIT = 15").replace("KEPT = 1", "KEPT = 16384")
    )
    done = run_command(
        *RUN, "--probe", "time", "--probe", "memory", "--interleave", "good", "--repeats", "5", "--json",
        "--output", "out", cwd=project, module="revbench",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["commit"] == git(project, "rev-parse", "good")
    outcomes = {f["metric"]: (f["outcome"], f["factor"]) for f in found["comparison"]["findings"]}
    assert outcomes["step_seconds"][0] == "worse"
    assert outcomes["step_seconds"][1] > 1.5  # of a wait that no busy neighbour hides
    assert outcomes["peak_bytes"][0] == "worse"  # by 64 KiB a half
    before, now = (read_run(project / name) for name in ("out-baseline", "out"))
    sessions = [[row.metrics["session"] for row in run.rows if row.probe == "time"] for run in (before, now)]
    assert sessions[0] == sessions[1]
    assert len(set(sessions[0])) == 5
    assert git(project, "worktree", "list").count("\n") == 0  # nothing is left behind
    assert git(project, "status", "--porcelain", "--untracked-files=no") == "M nets/mine.py"


@pytest.mark.slow
def test_the_same_version_twice_is_no_alarm(project: Path) -> None:
    done = run_command(
        *RUN,
        "--probe",
        "flops",
        "--interleave",
        "HEAD",
        "--repeats",
        "1",
        "--output",
        "out",
        cwd=project,
        module="revbench",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 worse" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--interleave", "nowhere"), "this repository has no such version"),
        (("--interleave", "--help"), "this repository has no such version"),
        (("--interleave", "good", "--fail-on", "speed > 3%"), "metric 'speed'"),
        (("--interleave", "good", "--resume", "out"), "omit --resume and --retry"),
        (("--fail-on", "peak_bytes > 3%"), "give --interleave REF, too"),
        (
            ("--interleave", "good"),
            "so the same code would be compared with itself",
        ),  # revbench's own, which lies elsewhere
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(project)
    code, _, err = cli("run", "revnet-38", *arguments, "--output", "out")
    assert code == 2
    assert words in err
    assert err.count("\n") == 1
    assert not (project / "out").exists()


def test_no_repository_is_a_mistake(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, _, err = cli("run", "revnet-38", "--interleave", "HEAD")
    assert code == 2
    assert "the current folder is in no git repository" in err


@pytest.mark.parametrize("baton", [None, 'PROTOCOL = "another one"'])
def test_a_revbench_that_is_too_old_is_named(
    project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, baton: str | None
) -> None:
    (project / "revbench" / "probes").mkdir(parents=True)
    if baton is not None:
        (project / "revbench" / "probes" / "baton.py").write_text(baton)
    (project / "revbench" / "probes" / "clock.py").write_text("")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "an old revbench")
    monkeypatch.chdir(project)
    code, _, err = cli("run", "revnet-38", "--interleave", "HEAD")
    assert code == 2
    assert "takes turns otherwise than this one, or not" in err


def test_paths_of_the_other_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "nets")
    (project / "venv").mkdir()
    with worktree_of("good") as (tree, commit):
        assert tree.other is not None
        other = str(tree.other)
        assert commit == git(project, "rev-parse", "HEAD")
        assert tree.moved(str(project)) == other
        assert tree.moved(str(project / "nets")) == f"{other}/nets"
        assert tree.current_folder() == f"{other}/nets"
        assert tree.moved(str(project / "venv")) == str(project / "venv")  # no version of the code has it
        assert tree.moved(str(ROOT)) == str(ROOT)
        assert tree.moved(f"{project}-other") == f"{project}-other"
    assert not Path(other).exists()
    assert OtherTree().moved("anything") == "anything"
    assert OtherTree().current_folder() is None


def test_what_the_other_version_has_not_is_named(project: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "newer.py").write_text(NETWORK)
    monkeypatch.chdir(project)
    code, _, err = cli("run", "newer:make", "--interleave", "good")
    assert code == 2
    assert "--interleave good: that version has no newer, so newer:make can't be compared with it" in err


def test_code_that_is_installed_elsewhere_is_the_same_in_both(
    project: Path, tmp_path_factory: pytest.TempPathFactory, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a package is that was installed and not linked, though the repository has it, too."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(project / "nets", site / "nets")
    monkeypatch.chdir(project)
    monkeypatch.setattr("sys.path", [str(site), *sys.path])
    code, _, err = cli("run", "nets.mine:make", "--interleave", "good")
    assert code == 2
    assert f"nets.mine:make is imported from {site / 'nets' / 'mine.py'}, which git has no other version of here" in err


def test_the_gate_and_the_reports_stand_in_the_folders(project: Path) -> None:
    (project / "nets" / "mine.py").write_text(NETWORK.replace("KEPT = 1", "KEPT = 16384"))
    summary = project / "summary.md"
    done = run_command(
        *RUN, "--probe", "memory", "--interleave", "good", "--repeats", "1", "--output", "out", cwd=project,
        module="revbench", GITHUB_STEP_SUMMARY=str(summary),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads((project / "out" / "gate.json").read_text())["failed"] is True
    assert (project / "out" / "gate.md").read_text().startswith("### ❌ gate against out-baseline")
    assert summary.read_text().startswith("### ❌")
    assert "Against the baseline" in (project / "out" / "report.md").read_text()
    assert "Against the baseline" not in (project / "out-baseline" / "report.md").read_text()
