"""By what a run was measured: the command as it was typed, and which revbench it was."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from revbench.results.schema import Invocation

MOST_LETTERS = 1000  # of a command
_PACKAGE = Path(__file__).resolve().parent.parent


def describe_invocation(
    environment_id: str, arguments: Sequence[str] | None = None, *, commit: str | None = None
) -> Invocation:
    """Returns the record of this invocation.

    Args:
        environment_id: of the machine.
        arguments: of the process, its program first; those that it has if not given. Of a path that begins at the root only the
            last part is kept: where somebody has files is nobody's business.
        commit: of another version of revbench that is measured; that of this one if not given.
    """
    program, *others = sys.argv if arguments is None else arguments
    words = [*_program(program), *map(_without_folders, others)]
    command = shlex.join(words).encode("utf-8", "replace").decode()
    commit, changed = _commit() if commit is None else (commit, False)
    return Invocation(
        environment_id=environment_id, started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=command if len(command) <= MOST_LETTERS else f"{command[: MOST_LETTERS - 1]}…",
        commit=commit, changed=changed,
    )  # fmt: skip


def _program(path: str) -> list[str]:
    name = Path(path).name
    if name == "__main__.py":
        return ["python", "-m", Path(path).parent.name]
    return [name or "python"]


def _without_folders(argument: str) -> str:
    """Returns an argument with the last part only of a path that begins at the root, wherever in it that begins."""
    return re.sub(r"(\A-\w|\A|[=:,])(?:file:/*)?/(?:[^/]*/)*(?=[^/])", r"\1", argument.rstrip("/"))


def _commit() -> tuple[str | None, bool | None]:
    """Returns the commit that the package is checked out at, and whether its files differ from it; None where it is installed
    otherwise, or git is not there."""
    try:
        commit = _git("rev-parse", "HEAD")
        return commit, bool(_git("status", "--porcelain", "--", str(_PACKAGE)))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(*arguments: str) -> str:
    if not (_PACKAGE.parent / ".git").exists():
        raise FileNotFoundError("no checkout")
    done = subprocess.run(
        ["git", "-C", str(_PACKAGE.parent), *arguments], check=True, capture_output=True, text=True, timeout=10
    )  # fmt: skip
    return done.stdout.strip()
