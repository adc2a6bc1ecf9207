"""Files that strangers may have made or may reach: opened only if they are files, sized before they are read, written whole.

A run folder may come from anywhere. Nothing in it is followed to a place outside: a link, a device or a pipe in place of one
of its files or folders is refused.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from revbench.errors import UserError
from revbench.units import human_bytes

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe that nobody writes to would wait for ever


def open_regular(path: Path, *, most_bytes: int, follow: bool = False) -> int:
    """Open a regular file for reading.

    Args:
        path: of the file.
        most_bytes: more than it may be expected to hold.
        follow: whether it may be a link, as in a folder of the user's own.

    Returns:
        Its descriptor.

    Raises:
        UserError: it is a link, no regular file, larger than `most_bytes`, or can't be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_WAIT | (0 if follow else NO_FOLLOW))
    except OSError as error:
        raise UserError(f"can't open {path}: {'it is a link' if os.path.islink(path) else error.strerror}") from error
    except ValueError as error:
        raise UserError(f"can't open {str(path)!r}: {error}") from error
    found = os.fstat(descriptor)
    problem = ""
    if not stat.S_ISREG(found.st_mode):
        problem = "it is no regular file"
    elif found.st_size > most_bytes:
        problem = f"it holds {human_bytes(found.st_size)}, and {human_bytes(most_bytes)} are the most that is read"
    if problem:
        os.close(descriptor)
        raise UserError(f"can't open {path}: {problem}")
    return descriptor


def read_bytes(path: Path, *, most_bytes: int) -> bytes:
    """Returns the content of a regular file; raises as `open_regular`."""
    try:
        with os.fdopen(open_regular(path, most_bytes=most_bytes), "rb") as file:
            return file.read(most_bytes)
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error


def is_there(path: Path) -> bool:
    """Tells whether there is anything under this name, a link that leads nowhere included."""
    try:
        return os.path.lexists(path)
    except ValueError:  # a name that no file can have
        return False


def own_folder(parent: Path, name: str) -> Path:
    """Returns the path of a folder inside a run folder, which need not be there.

    Raises:
        UserError: it is a link, or no folder.
    """
    path = parent / name
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
        raise UserError(
            f"{path} is {'a link' if os.path.islink(path) else 'no folder'}; put a folder in its place, or remove it"
        )
    return path


def write_atomically(path: Path, content: str | bytes, *, sync: bool = True) -> None:
    """Write a file whole or not at all: to a new file beside it, then renamed. A link in its place is replaced, not followed.

    Args:
        path: of the file; its folder is made if it is not there.
        content: text is written as UTF-8; what that can't express becomes a question mark.
        sync: return when it is on disk; else it may be lost with the machine's power.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}")  # no name that somebody could foresee
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)  # less the user's umask
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode(errors="replace") if isinstance(content, str) else content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
