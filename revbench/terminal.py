"""What is printed: a line at a time, in which nothing that a stranger wrote can move the cursor, hide or pretend a line."""

from __future__ import annotations

import html
import json
import math
import re
import sys
from typing import IO, Any


def printable(text: object) -> str:
    """Returns one line: white space becomes spaces, as many, and any other character that is not printable its escape,
    ``\\x1b``."""
    return "".join(c if c.isprintable() else " " if c.isspace() else ascii(c)[1:-1] for c in str(text))


def plain(text: object) -> str:
    """Returns the same with single spaces: for running text."""
    return printable(" ".join(str(text).split()))


def say(text: object, file: IO[str] | None = None) -> None:
    """Print one line, as `printable` leaves it.

    Args:
        text: of the line.
        file: standard output, if not given.
    """
    print(printable(text), file=sys.stdout if file is None else file, flush=True)


def say_json(value: Any) -> None:
    """Print a value as JSON in one line; numbers that are not finite, which JSON has not, become null."""
    say(json.dumps(_finite(value), allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(text: str) -> str:
    """Returns plain text as Markdown: nothing in it is markup, HTML, a mention or the end of a cell."""
    escaped = html.escape(plain(text), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", escaped).replace("@", "@\u200b")
