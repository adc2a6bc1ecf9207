"""Another version of the code beside this one, by git."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from revbench.errors import UserError
from revbench.runner.other_tree import OtherTree


@contextmanager
def worktree_of(ref: str) -> Iterator[tuple[OtherTree, str]]:
    """Inside, a version of the repository of the current folder is checked out elsewhere; nothing of this one changes.

    Args:
        ref: a commit, branch or tag.

    Returns:
        Where both are, and the version's commit.

    Raises:
        UserError: there is no git, no repository, or no such version.
    """
    root = Path(_git("rev-parse", "--show-toplevel", problem="the current folder is in no git repository")).resolve()
    commit = _git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}",
        problem=f"--interleave {ref}: this repository has no such version; git log shows which it has",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="revbench-") as scratch:
        other = Path(scratch).resolve() / "tree"
        _git("worktree", "add", "--detach", str(other), commit, problem=f"--interleave {ref} can't be checked out")
        try:
            yield OtherTree(root, other), commit
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(other)], capture_output=True, check=False, cwd=root
            )


def _git(*arguments: str, problem: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{problem}: git can't be run ({error.strerror})") from error
    if done.returncode:
        said = next(iter(done.stderr.strip().splitlines()), "")[:300]
        raise UserError(f"{problem}{f' ({said})' if said else ''}")
    return done.stdout.strip()
