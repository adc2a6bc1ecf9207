"""The series of a training, written line by line as it goes: what is on disk survives whatever ends the process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from revbench.errors import MAKE_ROOM, UserError
from revbench.probes.measurement import Value, finite_or_null
from revbench.results.files import is_there, read_bytes, write_atomically
from revbench.results.runs import MOST_SERIES_BYTES
from revbench.results.wire import decode_line
from revbench.training.declared import TRAINING

COLUMNS = TRAINING.series


class SeriesFile:
    """A file of JSON lines: the names of the columns, then a list of values a step; a context manager.

    Args:
        path: of the file, written line by line; None keeps the lines in memory alone.
        keep: lines of an earlier process that are kept: those up to its checkpoint; what came after is written anew.

    Attributes:
        lost: lines that should have been kept but were not there.

    Raises:
        UserError: it can't be written.
    """

    def __init__(self, path: Path | None, *, keep: int = 0) -> None:
        self._path = path
        self._lines: list[list[Value]] = []
        self._file: Any = None
        self.lost = 0
        if path is None:
            return
        try:
            if keep and is_there(path):
                self._lines = _read(path)[:keep]
            self.lost = keep - len(self._lines)
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in (COLUMNS, *self._lines)))
            self._file = path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> SeriesFile:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, values: dict[str, Value]) -> None:
        """Append the values of one step; what is not finite becomes null."""
        line: list[Value] = [finite_or_null(values.get(name)) for name in COLUMNS]
        self._lines.append(line)
        try:
            self._write(json.dumps(line))
        except OSError as error:
            raise self._unwritable(error) from error

    def sync(self) -> None:
        """Return when all lines are on disk.

        Raises:
            UserError: they can't be written.
        """
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._unwritable(error) from error

    def columns(self) -> dict[str, list[Any]]:
        """Returns all lines so far, by column."""
        return {name: [line[i] for line in self._lines] for i, name in enumerate(COLUMNS)}

    def _write(self, line: str) -> None:
        if self._file is not None:
            self._file.write(line + "\n")

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"can't write the series {self._path}: {error.strerror}; {MAKE_ROOM}")


def _read(path: Path) -> list[list[Value]]:
    """Returns the whole lines of a series file of this version; none if it is another's."""
    found: list[list[Value]] = []
    for number, text in enumerate(read_bytes(path, most_bytes=MOST_SERIES_BYTES).splitlines()):
        try:
            line = decode_line(text)
        except UserError:
            break  # torn by what ended the process
        if number == 0 and line != list(COLUMNS):
            return []
        if number:
            if len(line) != len(COLUMNS) or any(isinstance(value, str) for value in line):
                break
            found.append(line)
    return found
