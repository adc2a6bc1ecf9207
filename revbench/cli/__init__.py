"""The command line door: ``revbench run | train | estimate | report | compare | merge | models | env``.

Exit codes: 0; 1 the gate failed; 2 the user's mistake, in one line; 3 no case could be measured, or the run ended before its
time by something else than the user; 130 interrupted.
"""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

import typer

# isort: off, these register their commands, in the order in which --help lists them
from revbench.cli import about, estimate, run, runs, train  # noqa: F401

# isort: on
from revbench.cli.app import app
from revbench.errors import RunEnded, UserError

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command line and end the process with the exit code of the contract."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no degree sign is no reason to fail
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # factories beside the user; last, so that nothing there shadows a library
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        _fail(str(error), 2)
    except RunEnded as error:
        _fail(str(error), 3)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except Exception as error:
        # The parser's own complaints; their class lives in click or in typer, depending on typer's version.
        if not hasattr(error, "format_message"):
            raise
        _fail(error.format_message() or "give a command; --help lists them", 2)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"revbench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
