"""The run folder's ``rows.jsonl``: append-only, a line a record, each on disk before the next measurement begins."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from revbench.errors import MAKE_ROOM, UserError
from revbench.results.schema import SCHEMA_VERSION, Key, Metric, Row, check_environment, is_figure

ROWS = "rows.jsonl"
SERIES = "series"
CHECKPOINTS = "checkpoints"
NAME_COLUMNS = ("phase", "level", "name")  # of a series, that may hold words


@dataclass
class Run:
    """All rows of one run folder.

    Attributes:
        folder: where it is.
        rows: in the order in which they were measured.
        environments: the environment records by their ids.
    """

    folder: Path
    rows: list[Row] = field(default_factory=list)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    def series(self, row: Row) -> dict[str, list[Metric]]:
        """The columns of a row's series file; empty if it has none or the file is missing.

        Raises:
            UserError: the file is not an object of lists.
        """
        path = self.folder / SERIES / row.series if row.series else None
        if path is None or not path.is_file():
            return {}
        try:
            text = path.read_text(encoding="utf-8")
            columns = _columns_of_lines(text) if path.suffix == ".jsonl" else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not JSON ({error}); delete it to do without this series") from error
        if not isinstance(columns, dict) or not all(isinstance(column, list) for column in columns.values()):
            raise UserError(f"{path}: not an object of lists; delete it to do without this series")
        values = [value for name, column in columns.items() for value in column if name not in NAME_COLUMNS]
        if len({len(column) for column in columns.values()}) != 1 or not all(is_figure(value) for value in values):
            raise UserError(f"{path}: its columns are not numbers of one length; delete it to do without this series")
        return columns


def _columns_of_lines(text: str) -> dict[str, list[Any]]:
    """The columns of a series that was written line by line: their names, then a list of figures each."""
    lines = [json.loads(line) for line in text.splitlines()]
    if not all(isinstance(line, list) and len(line) == len(lines[0]) for line in lines):
        raise ValueError("its lines are not lists of one length")
    return {str(name): list(column) for name, *column in zip(*lines, strict=True)}


def read_run(folder: Path) -> Run:
    """Read a run folder, or one ``rows.jsonl``. A torn last line, as a killed run leaves it, is passed over.

    Raises:
        UserError: no run there, another schema version, or a line that is not a record.
    """
    path = folder if _is_file(folder) else folder / ROWS
    if not _is_file(path):
        raise UserError(f"{folder} is not a run folder: it holds no {ROWS}")
    run = Run(path.parent)
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # empty if the last line is whole
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise UserError("not an object")
            if number == 1:
                _check_version(record)
            elif record.get("kind") == "environment":
                check_environment(record)
                run.environments[record["environment_id"]] = {k: v for k, v in record.items() if k != "kind"}
            elif record.get("kind") == "row":
                run.rows.append(Row.from_json(record))
            else:
                raise UserError("neither a row nor an environment")
        except (ValueError, RecursionError) as error:  # a UserError is a ValueError, as is what json raises
            raise UserError(f"{path}, line {number}: {error}") from error
    if not lines and torn:
        raise UserError(f"{path}, line 1: the first line, with the schema version, is torn; start a new run")
    return run


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, say
        return False


def _check_version(record: Mapping[str, Any]) -> None:
    found = record.get("schema_version")
    if found != SCHEMA_VERSION:
        raise UserError(f"schema version {found!r}; this revbench reads version {SCHEMA_VERSION}")


class Journal:
    """Writes a run folder; only one process at a time may.

    Args:
        folder: made if it is not there.
        resume: go on with the rows of an earlier invocation instead of refusing them.

    Raises:
        UserError: the folder can't be written, holds a run already (without `resume`), holds none (with
            it), or another process is writing to it.
    """

    def __init__(self, folder: Path, *, resume: bool = False) -> None:
        path = folder / ROWS
        there = _is_file(path)
        if resume and not there:
            raise UserError(f"{folder} holds no {ROWS} to resume; give the folder of an earlier run")
        if not resume and there:
            raise UserError(f"{folder} holds a run already; resume it, or name another folder")
        try:
            self._made = [p for p in (folder, *folder.parents) if not p.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"can't write the run folder {folder}: {error.strerror}; name another") from error
        self.folder = folder
        self._lock()
        if resume:
            self._cut_torn_line(path)
        self.run = read_run(folder) if os.path.getsize(path) else Run(folder)
        if not os.path.getsize(path):
            self._append({"schema_version": SCHEMA_VERSION})

    def add_environment(self, environment: Mapping[str, Any]) -> str:
        """Record an environment, if it is a new one; returns its id."""
        key = str(environment["environment_id"])
        if key not in self.run.environments:
            self._append({"kind": "environment", **environment})
            self.run.environments[key] = dict(environment)
        return key

    def add_row(self, row: Row) -> None:
        """Append a row; it is on disk when this returns."""
        self._append(row.to_json())
        self.run.rows.append(row)

    def add_series(self, key: Key, columns: Mapping[str, Sequence[Metric]]) -> str:
        """Write a series file beside the rows; returns its name, for the row that is added next."""
        name = f"{series_stem(key)}.json"
        try:
            write_atomically(self.folder / SERIES / name, json.dumps(columns, allow_nan=False))
        except OSError as error:
            raise UserError(
                f"can't write to the run folder {self.folder}: {error.strerror}; {self._how_to_go_on()}"
            ) from error
        return name

    def has_checkpoint(self, stem: str) -> bool:
        """Whether a training left something to go on with."""
        return any((self.folder / CHECKPOINTS / f"{stem}{kind}.pt").is_file() for kind in ("", ".previous"))

    def remove_checkpoints(self, stem: str) -> None:
        """Of a training whose row is on disk: until then they are all there is of it."""
        folder = self.folder / CHECKPOINTS
        for pattern in (f"{stem}.*pt", f".{stem}.*"):  # also what a kill left half-written
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another training's are there, or it was never made
            folder.rmdir()

    def _is_empty(self) -> bool:
        return not self.run.rows and not any((self.folder / CHECKPOINTS).glob("*.pt"))

    def _how_to_go_on(self) -> str:
        return f"{MAKE_ROOM} and {'begin again' if self._is_empty() else 'resume'}"

    def close(self) -> None:
        """Let another process write. A run without a row and without a checkpoint leaves nothing behind."""
        os.close(self._file)
        if self._is_empty():
            (self.folder / ROWS).unlink(missing_ok=True)
            if self.folder in self._made:
                shutil.rmtree(self.folder / SERIES, ignore_errors=True)  # the beginning of a training, to be begun anew
            for made in self._made:
                with contextlib.suppress(OSError):  # somebody put something there meanwhile
                    made.rmdir()

    def _append(self, record: Mapping[str, Any]) -> None:
        data = (json.dumps(record, allow_nan=False) + "\n").encode()
        size = os.fstat(self._file).st_size
        try:
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)  # half a line would make all the others unreadable
            raise UserError(
                f"can't write to the run folder {self.folder}: {error.strerror}; {self._how_to_go_on()}"
            ) from error

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows has no flock
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"another process is writing to the run folder {self.folder}; wait for it to end"
            ) from error

    def _cut_torn_line(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)


def series_stem(key: Key) -> str:
    """What the files of a row are called, made of nothing but letters, digits and dashes."""
    case_id, probe, repeat, options = key
    words = re.sub(r"[^A-Za-z0-9=-]+", "_", case_id)[:80].strip("_")
    return f"{probe}-{words}-{sha256(case_id.encode()).hexdigest()[:8]}-{repeat}" + (f"-{options}" if options else "")


def run_folder(resume: str | Path | None, output: str | Path | None, *, prefix: str = "--") -> Path:
    """The folder of a run: one to go on with, the one that is asked for, or a new one named by the time (UTC).

    Args:
        resume, output: what the user gave for either.
        prefix: of the two options.

    Raises:
        UserError: both are given.
    """
    if resume and output:
        raise UserError(f"{prefix}resume names the run folder already; leave {prefix}output away")
    return Path(resume or output or Path("reports") / datetime.now(timezone.utc).strftime("%Y-%m-%dT%H%M%SZ"))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary file beside it, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode(errors="replace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
