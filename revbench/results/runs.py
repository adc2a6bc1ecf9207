"""Reads run folders: their rows, environments and series, each held to its type, and nothing outside of them."""

from __future__ import annotations

import gc
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from revbench.errors import UserError
from revbench.probes.measurement import Value
from revbench.results.files import is_there, open_regular, own_folder, read_bytes
from revbench.results.schema import SCHEMA_VERSION, Invocation, Row
from revbench.results.wire import check_header, decode_columns, decode_lines, decode_record
from revbench.units import human_bytes

ROWS = "rows.jsonl"
SERIES = "series"
CHECKPOINTS = "checkpoints"

HEADER = json.dumps({"schema_version": SCHEMA_VERSION}).encode()

MOST_ROWS_BYTES = 2 << 30  # of a whole run
MOST_LINE_BYTES = 64 << 20  # of a record
MOST_SERIES_BYTES = 256 << 20


@dataclass
class Run:
    """All rows of one run folder.

    Attributes:
        folder: where it is.
        rows: in the order in which they were measured.
        environments: the environment records by their ids.
        invocations: by what it was measured; runs of before November 2026 don't say.
    """

    folder: Path
    rows: list[Row] = field(default_factory=list)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    invocations: list[Invocation] = field(default_factory=list)

    def series(self, row: Row) -> dict[str, list[Value]]:
        """Returns the columns of a row's series file; empty if it has none or the file is missing.

        Raises:
            UserError: the file is no series, a link, or too large.
        """
        if not row.series:
            return {}
        path = own_folder(self.folder, SERIES) / row.series
        if not is_there(path):
            return {}
        text = read_bytes(path, most_bytes=MOST_SERIES_BYTES)
        try:
            return decode_lines(text) if path.suffix == ".jsonl" else decode_columns(text)
        except UserError as error:
            raise UserError(f"{path}: {error}; delete it to do without this series") from error

    def add(self, text: bytes) -> None:
        """Take the record of a line.

        Raises:
            UserError: it is none.
        """
        record = decode_record(text)
        if isinstance(record, Row):
            self.rows.append(record)
        elif isinstance(record, Invocation):
            self.invocations.append(record)
        else:
            self.environments[record.environment_id] = record.to_dict()


@dataclass(frozen=True)
class Reading:
    """What is in a ``rows.jsonl``.

    Attributes:
        run: all of it that is whole, a last record without its newline included.
        tail: what follows the last newline.
        torn: whether the tail is no whole record: what a kill left of it.
        first: whether there is nothing before the tail.
    """

    run: Run
    tail: bytes
    torn: bool
    first: bool


def read_run(folder: Path) -> Run:
    """Read a run folder, or one ``rows.jsonl``. A torn last line, as a killed run leaves it, is passed over.

    Raises:
        UserError: no run there, another schema version, or a line that is not a record.
    """
    path = run_path(folder)
    with os.fdopen(open_regular(path, most_bytes=MOST_ROWS_BYTES), "rb") as file:
        reading = read_rows(file, path)
    if reading.torn and reading.first:
        raise UserError(f"{path}, line 1: the first line, with the schema version, is torn; start a new run")
    return reading.run


def read_rows(file: IO[bytes], path: Path) -> Reading:
    """Read and judge all of an open ``rows.jsonl``.

    Args:
        file: at its beginning.
        path: for messages.

    Raises:
        UserError: a line that is no record of this version.
    """
    run = Run(path.parent)
    number = 0
    collects = gc.isenabled()
    gc.disable()  # no cycle is made here, and looking for some in all that is read takes longer than reading it
    try:
        while line := file.readline(MOST_LINE_BYTES + 1):
            number += 1
            if len(line) > MOST_LINE_BYTES:
                raise UserError(f"longer than {human_bytes(MOST_LINE_BYTES)}")
            whole, text = line.endswith(b"\n"), line.rstrip(b"\n")
            try:
                check_header(text) if number == 1 else run.add(text)
            except UserError:
                if whole or (number == 1 and not HEADER.startswith(text)):
                    raise
                return Reading(run, text, torn=True, first=number == 1)
            if not whole:
                return Reading(run, text, torn=False, first=number == 1)
    except UserError as error:
        raise UserError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    finally:
        if collects:
            gc.enable()
    return Reading(run, b"", torn=False, first=number == 0)


def run_path(folder: Path) -> Path:
    """Returns the ``rows.jsonl`` of a run folder, or this file itself.

    Raises:
        UserError: no run is there.
    """
    try:
        path = folder / ROWS if folder.is_dir() else folder
    except OSError:  # a name too long, say
        path = folder
    if not is_there(path):
        raise UserError(f"{folder} is not a run folder: it holds no {ROWS}")
    return path
