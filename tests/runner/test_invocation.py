"""By what a run was measured: the command without the folders of whoever typed it, and the commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from revbench.results.journal import Journal
from revbench.results.merge import merge_runs
from revbench.results.runs import read_run
from revbench.runner import invocation
from revbench.runner.invocation import describe_invocation
from tests.results.rows import ENVIRONMENT, make_row, write_run

ID = str(ENVIRONMENT["environment_id"])


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["/home/me/venv/bin/pytest", "--benchmark"], "pytest --benchmark"),
        (["/x/revbench/__main__.py", "run", "revnet-38"], "python -m revbench run revnet-38"),
        (
            ["pytest", "--revbench-output=/home/me/secret/run", "suites/a.py"],
            "pytest --revbench-output=run suites/a.py",
        ),
        (
            ["pytest", "--revbench-data=CIFAR-10 (JPEG)=/home/me/images/"],
            "pytest '--revbench-data=CIFAR-10 (JPEG)=images'",
        ),
        (["revbench", "run", "a b", "--output", "/home/me/run"], "revbench run 'a b' --output run"),
        (["x", "-o/home/me/secret/run", "file:///home/me/secret", "/home/me/a=b/images"], "x -orun secret images"),
        (
            ["pytest", "/home/me/t.py::test[a=b]", "suites/a/b.py", "a=1,/x/y"],
            "pytest 't.py::test[a=b]' suites/a/b.py a=1,y",
        ),
        (["revbench", "\udcff"], "revbench '?'"),
    ],
)
def test_the_command_names_no_folder_of_anybody(typed: list[str], command: str) -> None:
    assert describe_invocation(ID, typed).command == command


def test_a_very_long_command_is_cut() -> None:
    assert len(describe_invocation(ID, ["revbench", *["x" * 100] * 100]).command) == invocation.MOST_LETTERS


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "revbench"
    package.mkdir()
    monkeypatch.setattr(invocation, "_PACKAGE", package)
    assert (found := describe_invocation(ID)).commit is None
    assert found.changed is None

    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    (package / "a.py").write_text("")
    git("add", ".")
    git("commit", "-qm", "first")
    found = describe_invocation(ID)
    assert (found.commit, found.changed) == (git("rev-parse", "HEAD"), False)
    (package / "a.py").write_text("1")
    assert describe_invocation(ID).changed
    assert describe_invocation(ID, commit="a" * 40).commit == "a" * 40


def test_it_is_read_again_and_merged(tmp_path: Path) -> None:
    for name, launch in (("a", 1), ("b", 2)):
        run = write_run(tmp_path / name, make_row(repeat=launch))
        journal = Journal(run, resume=True)
        journal.add_invocation(describe_invocation(ID, ["revbench", "run", name]))
        journal.close()
    assert [one.command for one in read_run(tmp_path / "a").invocations] == ["revbench run a"]
    merged = merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "both")
    assert [one.command for one in merged.invocations] == ["revbench run a", "revbench run b"]
    assert merged.invocations == read_run(tmp_path / "both").invocations
