"""The command line door: ``revbench run | train | estimate | report | compare | history | export | merge | models | probes |
doctor | env``.

Exit codes: 0; 1 the gate failed, or the doctor found a fault; 2 the user's mistake, or a fault of ours, in one line; 3 no case
could be measured, or the run ended before its time by something else than the user; 130 interrupted; 141 nobody reads the
output any more.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import typer

# These register their commands, in the order in which --help lists them.
# isort: off
from revbench.cli import run, train, estimate, report, compare, history, export, merge, models, probes, doctor, env  # noqa: F401

# isort: on
from revbench.cli.app import app
from revbench.errors import Interrupted, RunEnded, UserError, first_line
from revbench.imports import forget_current_folder
from revbench.terminal import plain, say

__all__ = ["app", "main"]

TRACEBACK = "REVBENCH_TRACEBACK"  # set it to see where an error that nobody foresaw comes from


def main() -> NoReturn:
    """Run the command line and end the process with the exit code of the contract."""
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no degree sign is no reason to fail
    forget_current_folder()
    message, code = _run()
    if message:
        with suppress(OSError):
            say(plain(message) if code == 130 else f"revbench: {plain(message)}", sys.stderr)
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    if _output_is_lost():
        os._exit(code)
    sys.exit(code)


def _run() -> tuple[str, int]:
    """Returns what is to be said at the end, and the exit code."""
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # some versions of the parser return this of Ctrl-C, others raise
            return "interrupted", 130
        return "", code if isinstance(code, int) else 0
    except UserError as error:
        return str(error), 2
    except RunEnded as error:
        return str(error), 3
    except Interrupted as error:
        return str(error), 130
    except (KeyboardInterrupt, typer.Abort):
        return "interrupted", 130
    except BrokenPipeError:
        return "", 141
    except SystemExit as ended:  # click's, of a broken pipe; it would be taken for a failed gate
        return "", 141 if isinstance(ended.__context__, BrokenPipeError) else 2
    except OSError as error:
        _show_if_asked()
        where = f" {error.filename!r}" if error.filename is not None else ""
        hint = "; make room" if error.errno == errno.ENOSPC else ""
        return f"can't use{where or ' a file'}: {error.strerror or first_line(error)}{hint}", 2
    except Exception as error:
        # The parser's own complaints; their class lives in click or in typer, depending on typer's version.
        if hasattr(error, "format_message"):
            return error.format_message() or "give a command; --help lists them", 2
        _show_if_asked()
        seen = "" if os.environ.get(TRACEBACK) else f"; set {TRACEBACK}=1 to see where, and report it"
        return f"an error that revbench did not foresee: {type(error).__name__}: {first_line(error)[:500]}{seen}", 2


def _open_missing_streams() -> None:
    """Open what a shell closed of standard input, output and error: else the next file that is opened would be taken for it."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - it stays open


def _show_if_asked() -> None:
    if os.environ.get(TRACEBACK):
        traceback.print_exc()


def _output_is_lost() -> bool:
    """Tells whether standard output can't take what is left for it: the interpreter would complain of it when it ends."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        return True
    return False
