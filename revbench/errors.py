"""What ends a command early, each shown as a single line and never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAKE_ROOM = "make room"  # the mend for a full disk


class UserError(ValueError):
    """A mistake in what the user asked for.

    The message is one line that names the input and says how to mend it. The command line turns it
    into exit code 2, pytest into ``pytest.UsageError`` (exit code 4).
    """


def unknown(kind: str, value: object, known: Iterable[str]) -> UserError:
    """Returns a `UserError` for a name that is not among the known ones, with the nearest one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {str(value)!r}{hint} (known: {', '.join(names)})")


def first_line(error: BaseException) -> str:
    """Returns the first line of what an exception says; the name of its class if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Interrupted(Exception):
    """The user ended a run (Ctrl-C). The message is one line, which says how to go on; the command line's exit code is 130.

    No `KeyboardInterrupt`, which the command line's parser takes for itself and whose message it drops.
    """


class RunEnded(Exception):
    """Something other than the user ended a run before its time: another process died, or the system asked this one to go.

    The message is one line. The command line turns it into exit code 3.
    """
