"""Writes a run folder: ``rows.jsonl`` is append-only, a line a record, each on disk before the next measurement begins."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from revbench.errors import MAKE_ROOM, UserError
from revbench.probes.measurement import Value
from revbench.results.files import NO_FOLLOW, NO_WAIT, is_there, own_folder, write_atomically
from revbench.results.runs import CHECKPOINTS, HEADER, ROWS, SERIES, Run, read_rows
from revbench.results.schema import Invocation, Key, Row
from revbench.results.wire import decode_record


class Taken(UserError):
    """A run folder holds a run already, or another process is writing to it."""


class Journal:
    """Writes a run folder; only one process at a time may.

    Args:
        folder: made if it is not there.
        resume: go on with the rows of an earlier invocation instead of refusing them. A last line that a kill cut off is moved
            to a file beside the rows.

    Attributes:
        notes: what a person should know of how it was opened.

    Raises:
        UserError: the folder can't be written, holds a run already (without `resume`), holds none (with
            it) or one that this version can't read, or another process is writing to it. Nothing is changed then.
    """

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        path = folder / ROWS
        there = is_there(path)
        if resume and not there:
            raise UserError(f"{folder} holds no {ROWS} to resume; give the folder of an earlier run")
        if not resume and there:
            raise Taken(f"{folder} holds a run already; resume it, or name another folder")
        try:
            self._made = [p for p in (folder, *folder.parents) if not p.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_FOLLOW | NO_WAIT, 0o666)
        except OSError as error:
            problem = f"{ROWS} is a link" if os.path.islink(path) else error.strerror
            raise UserError(f"can't write the run folder {folder}: {problem}; name another") from error
        self.folder = folder
        self.notes: list[str] = []
        self.run = Run(folder)
        self._may_hold_rows = resume
        try:
            if not stat.S_ISREG(os.fstat(self._file).st_mode):
                raise UserError(f"{path} is no regular file; name another folder")
            self._lock(path)
            if resume:
                self._take_over(path)
                self._may_hold_rows = bool(self.run.rows)
        except BaseException:
            os.close(self._file)
            raise

    def _take_over(self, path: Path) -> None:
        """Read what is there already. A torn last line is moved out of the way, one without its newline gets it."""
        with open(self._file, "rb", closefd=False) as file:
            reading = read_rows(file, path)
        self.run = reading.run
        if reading.torn:
            kept = self._keep(reading.tail)
            self._cut(os.fstat(self._file).st_size - len(reading.tail))
            self.notes.append(f"the last line of {path} was cut off; what was there of it is in {kept.name}")
        elif reading.tail:
            self._write(b"\n")

    def _keep(self, tail: bytes) -> Path:
        """Returns a new file beside the rows that holds this."""
        number = 1
        while True:
            path = self.folder / f"{ROWS}.torn-{number}"
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)
            except FileExistsError:
                number += 1
                continue
            except OSError as error:
                raise self._unwritable(error) from error
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(tail)
                    file.flush()
                    os.fsync(descriptor)
            except OSError as error:
                path.unlink(missing_ok=True)
                raise self._unwritable(error) from error
            return path

    def add_environment(self, environment: Mapping[str, Any]) -> str:
        """Record an environment, if it is a new one; returns its id."""
        key = str(environment["environment_id"])
        if key not in self.run.environments:
            self._append({"kind": "environment", **environment})
            self.run.environments[key] = dict(environment)
        return key

    def add_invocation(self, invocation: Invocation) -> None:
        """Record by what the rows that follow are measured."""
        self._append(invocation.to_json())
        self.run.invocations.append(invocation)

    def add_row(self, row: Row) -> None:
        """Append a row; it is on disk when this returns."""
        self.add_rows([row])

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Append several rows at once: all of them, or none."""
        before = self._may_hold_rows
        self._may_hold_rows = True  # also if this is interrupted
        try:
            self._append(*(row.to_json() for row in rows))
        except UserError:
            self._may_hold_rows = before
            raise
        self.run.rows += rows

    def add_series(self, key: Key, columns: Mapping[str, Sequence[Value]]) -> str:
        """Write a series file beside the rows; returns its name, for the row that is added next."""
        name = f"{series_stem(key)}.json"
        try:
            write_atomically(own_folder(self.folder, SERIES) / name, json.dumps(columns, allow_nan=False))
        except OSError as error:
            raise self._unwritable(error) from error
        return name

    def has_checkpoint(self, stem: str) -> bool:
        """Tells whether a training left something to go on with."""
        folder = own_folder(self.folder, CHECKPOINTS)
        return any((folder / f"{stem}{kind}.pt").is_file() for kind in ("", ".previous"))

    def remove_checkpoints(self, stem: str) -> None:
        """Remove those of a training whose row is on disk: until then they are all there is of it."""
        folder = own_folder(self.folder, CHECKPOINTS)
        for pattern in (f"{stem}.*pt", f".{stem}.*"):  # also what a kill left half-written
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another training's are there, or it was never made
            folder.rmdir()

    def _is_empty(self) -> bool:
        return not self._may_hold_rows and not any((self.folder / CHECKPOINTS).glob("*.pt"))

    def _unwritable(self, error: OSError) -> UserError:
        mend = f"{MAKE_ROOM} and {'begin again' if self._is_empty() else 'resume'}"
        return UserError(f"can't write to the run folder {self.folder}: {error.strerror}; {mend}")

    def close(self) -> None:
        """Let another process write. A run without a row and without a checkpoint leaves nothing behind."""
        if self._file < 0:
            return
        empty = self._is_empty()
        if empty:
            (self.folder / ROWS).unlink(missing_ok=True)  # while it is still locked
        os.close(self._file)
        self._file = -1
        if empty:
            if self.folder in self._made:
                shutil.rmtree(self.folder / SERIES, ignore_errors=True)  # the beginning of a training, to be begun anew
                with contextlib.suppress(OSError):  # there is none, or something of somebody's in it
                    (self.folder / CHECKPOINTS).rmdir()
            for made in self._made:
                with contextlib.suppress(OSError):  # somebody put something there meanwhile
                    made.rmdir()

    def _append(self, *records: Mapping[str, Any]) -> None:
        lines = [json.dumps(record, allow_nan=False).encode() for record in records]
        for line in lines:
            try:
                decode_record(line)  # one that could not be read again would cost all the others
            except UserError as error:
                raise UserError(f"a record of the run {self.folder} can't be written: {error}") from error
        self._write(b"".join(line + b"\n" for line in lines))

    def _write(self, data: bytes) -> None:
        if not os.fstat(self._file).st_size:
            data = HEADER + b"\n" + data
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            self._cut(size)  # half a line would make all the others unreadable
            raise self._unwritable(error) from error

    def _cut(self, size: int) -> None:
        os.ftruncate(self._file, size)
        with contextlib.suppress(OSError):
            os.fsync(self._file)

    def _lock(self, path: Path) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no flock
            return
        busy = Taken(f"another process is writing to the run folder {self.folder}; wait for it to end")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise busy from error
            self.notes.append(f"{self.folder}: this file system has no locks; see that no other process writes there")
        if not is_there(path) or os.fstat(self._file).st_ino != os.lstat(path).st_ino:
            raise busy  # it ended meanwhile, and took its empty file with it


def is_being_written(folder: Path) -> bool:
    """Tells whether a process is writing to a run folder; no, where that can't be known."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock
        return False
    try:
        descriptor = os.open(folder / ROWS, os.O_RDONLY | NO_FOLLOW | NO_WAIT)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(descriptor)  # and with it the lock
    return False


def series_stem(key: Key) -> str:
    """Returns what the files of a row are called, made of nothing but letters, digits and dashes."""
    case_id, probe, repeat, options = key
    words = re.sub(r"[^A-Za-z0-9=-]+", "_", case_id)[:80].strip("_")
    return f"{probe}-{words}-{sha256(case_id.encode()).hexdigest()[:8]}-{repeat}" + (f"-{options}" if options else "")


def open_journal(resume: str | Path | None, output: str | Path | None, *, retry: bool, prefix: str = "--") -> Journal:
    """Returns the journal of a run: one to go on with, the one that is asked for, or a new one named by the time (UTC).

    Args:
        resume, output: what the user gave for either.
        retry: whether rows of a run that is there are to be measured again.
        prefix: of the three options.

    Raises:
        UserError: both are given, a retry of nothing, or as `Journal` does.
    """
    if retry and not resume:
        raise UserError(f"{prefix}retry is of a run that is there: give it with {prefix}resume=DIR")
    if resume and output:
        raise UserError(f"{prefix}resume names the run folder already; omit {prefix}output")
    if resume:
        return Journal(Path(resume), resume=True)
    if output:
        try:
            return Journal(Path(output))
        except Taken as error:
            raise Taken(
                f"{output} holds a run already; name another folder, or go on with it: {prefix}resume={output}, and"
                f" {prefix}retry to measure again what failed"
            ) from error
    name = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ")
    number = 1
    while True:
        try:
            return Journal(Path("reports") / (name if number == 1 else f"{name}-{number}"))
        except Taken:  # by a run that began in the same second
            number += 1
