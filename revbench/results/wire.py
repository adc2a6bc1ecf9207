"""The one door for records from files: every field is typed here, once, and what does not fit is refused in one line.

Run folders are data from strangers: numbers are finite, words have a length, nothing is nested, and nothing is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from revbench.case import Case
from revbench.choices import Status
from revbench.errors import UserError
from revbench.probes.measurement import LARGEST, MOST_LETTERS, Value
from revbench.results.schema import SCHEMA_VERSION, Invocation, Row

MOST_SAMPLES = 1_000_000  # of one metric in one row

# Arithmetic with them must not overflow: sums, squares of ratios, products with units.
_Integer = Annotated[int, Meta(ge=-(2**62), le=2**62)]
_Number = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
_Count = Annotated[int, Meta(ge=0, le=2**62)]
_Seconds = Annotated[float, Meta(ge=0, le=LARGEST)]
_Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.:/ -]*\Z", max_length=200)]
_Word = Annotated[str, Meta(max_length=1000)]
_Text = Annotated[str, Meta(max_length=MOST_LETTERS)]
_Figure = _Integer | _Number | None
_Value = _Integer | _Number | _Text | bool | None
_Series = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._=-]*\.jsonl?\Z", max_length=255)]

Options = dict[_Name, _Value | Annotated[list[_Value], Meta(max_length=1000)]]

WORD_COLUMNS = ("phase", "level", "name")  # of a series, that hold words where others hold numbers


class Header(Struct):
    """The first line of a run."""

    schema_version: Any


class _Cpu(Struct, forbid_unknown_fields=True):
    model: _Word
    logical_cores: _Count | None
    usable_cores: _Count | None
    capability: _Word
    revision: _Word | UnsetType = UNSET


class _Accelerator(Struct, forbid_unknown_fields=True):
    name: _Word
    uuid: _Word
    memory_bytes: _Count
    capability: _Word
    multiprocessors: _Count
    driver: _Word | None
    power_limit_watts: _Seconds | UnsetType | None = UNSET


class _Build(Struct, forbid_unknown_fields=True):
    threads: _Count
    cuda: _Word | None
    cudnn: _Count | None
    mkldnn: bool
    build: _Word | UnsetType = UNSET


class _Packages(Struct, forbid_unknown_fields=True):
    revbench: _Word | None
    torch: _Word | None
    torchvision: _Word | None
    numpy: _Word | None
    nvidia_ml_py: _Word | None = msgspec.field(name="nvidia-ml-py")


class EnvironmentRecord(Struct, forbid_unknown_fields=True, tag_field="kind", tag="environment"):
    """An environment as `revbench.runner.environment.describe_environment` makes it."""

    environment_id: _Name
    cpu: _Cpu
    memory_bytes: _Count
    accelerators: Annotated[list[_Accelerator], Meta(max_length=1000)]
    system: _Word
    python: _Word
    packages: _Packages
    torch: _Build
    gpu_settings: dict[_Name, _Word] | UnsetType = UNSET
    gpu_warning: _Text | UnsetType = UNSET
    unused_gpu: _Text | UnsetType = UNSET

    def to_dict(self) -> dict[str, Any]:
        """Returns the record as it was before it was written."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        del found["kind"]
        return found


class InvocationRecord(Struct, forbid_unknown_fields=True, tag_field="kind", tag="invocation"):
    """By what rows were measured, as `Invocation.to_json` makes it."""

    environment_id: _Name
    started: Annotated[str, Meta(max_length=64)]
    command: _Word
    commit: Annotated[str, Meta(pattern=r"\A[0-9a-f]{40,64}\Z")] | None = None
    changed: bool | None = None

    def to_invocation(self) -> Invocation:
        """Returns the record."""
        return Invocation(
            environment_id=self.environment_id, started=self.started, command=self.command, commit=self.commit,
            changed=self.changed,
        )  # fmt: skip


_OLD_NAMES = {"time_interleaved": "time"}  # of probes, in runs of before November 2026


class RowRecord(Struct, forbid_unknown_fields=True, tag_field="kind", tag="row"):
    """A row as `Row.to_json` makes it."""

    case: msgspec.Raw
    probe: _Name
    repeat: Annotated[int, Meta(ge=1, le=10**9)]
    status: Status
    environment_id: _Name
    started: Annotated[str, Meta(max_length=64)]
    elapsed_seconds: _Seconds | Annotated[int, Meta(ge=0, le=2**62)]
    case_id: str | UnsetType = UNSET
    options: Options = {}
    metrics: dict[_Name, _Integer | _Number | _Text | None] = {}
    samples: dict[_Name, Annotated[list[_Integer | _Number], Meta(max_length=MOST_SAMPLES)]] = {}
    series: _Series | None = None
    message: _Text | None = None

    def to_row(self) -> Row:
        """Returns the row.

        Raises:
            UserError: its case is none.
        """
        return Row(
            case=_case_of(bytes(self.case)), probe=_OLD_NAMES.get(self.probe, self.probe), repeat=self.repeat, status=self.status,
            environment_id=self.environment_id, started=self.started, elapsed_seconds=self.elapsed_seconds,
            options=self.options, metrics=self.metrics, samples=self.samples, series=self.series, message=self.message,
        )  # fmt: skip


@lru_cache(maxsize=100_000)  # many rows are of one case
def _case_of(text: bytes) -> Case:
    try:
        return Case.from_json(_decoded(_CASE.decode, text))
    except UserError as error:
        raise UserError(f"case: {error}") from error


_CASE = msgspec.json.Decoder(dict[str, Annotated[str, Meta(max_length=1000)] | int | float | bool | None])
_HEADER = msgspec.json.Decoder(Header)
_Record = EnvironmentRecord | InvocationRecord | RowRecord
_RECORD: msgspec.json.Decoder[_Record] = msgspec.json.Decoder(_Record)
_COLUMNS = msgspec.json.Decoder(dict[str, list[_Figure | _Word]])
_LINE = msgspec.json.Decoder(list[_Figure | _Word])

Decoded = TypeVar("Decoded")


def _decoded(decode: Callable[[bytes], Decoded], text: bytes) -> Decoded:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(str(error) or type(error).__name__) from error


def check_header(text: bytes) -> None:
    """Raise a `UserError` unless this is the first line of a run that this version reads."""
    found = _decoded(_HEADER.decode, text).schema_version
    if type(found) is not int or found != SCHEMA_VERSION:
        raise UserError(f"schema version {str(found)[:20]}; this revbench reads version {SCHEMA_VERSION}")


def decode_record(text: bytes) -> Row | EnvironmentRecord | Invocation:
    """Returns the record of one of the other lines.

    Raises:
        UserError: it is none.
    """
    found = _decoded(_RECORD.decode, text)
    if isinstance(found, RowRecord):
        return found.to_row()
    return found.to_invocation() if isinstance(found, InvocationRecord) else found


def check_options(options: dict[str, Any]) -> None:
    """Raise a `UserError` unless a row can hold these settings of a probe."""
    try:
        msgspec.json.decode(json.dumps(options, allow_nan=False), type=Options)
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
        raise UserError(str(error)) from error


def check_environment(record: dict[str, Any]) -> dict[str, Any]:
    """Returns the environment of another process, if it is one.

    Raises:
        UserError: it is none.
    """
    try:
        return msgspec.convert({**record, "kind": "environment"}, EnvironmentRecord).to_dict()
    except (msgspec.ValidationError, RecursionError) as error:
        raise UserError(f"environment: {error}") from error


def decode_columns(text: bytes) -> dict[str, list[Value]]:
    """Returns the columns of a series: lists of one length, of numbers but for `WORD_COLUMNS`.

    Raises:
        UserError: they are not.
    """
    return _checked(_decoded(_COLUMNS.decode, text))


def decode_lines(text: bytes) -> dict[str, list[Value]]:
    """Returns the same of a series that was written line by line: the names of its columns, then a list of values each.

    Raises:
        UserError: as for `decode_columns`.
    """
    names, *lines = [_decoded(_LINE.decode, line) for line in text.splitlines()] or [[]]
    if not all(isinstance(name, str) for name in names) or not all(len(line) == len(names) for line in lines):
        raise UserError("its lines are not lists of one length")
    return _checked({str(name): [line[i] for line in lines] for i, name in enumerate(names)})


def decode_line(text: bytes) -> list[Value]:
    """Returns one line of such a series.

    Raises:
        UserError: it is none.
    """
    return _decoded(_LINE.decode, text)


def _checked(columns: dict[str, list[Value]]) -> dict[str, list[Value]]:
    words = (value for name, column in columns.items() if name not in WORD_COLUMNS for value in column)
    if len({len(column) for column in columns.values()}) > 1 or any(isinstance(value, str) for value in words):
        raise UserError("its columns are not numbers of one length")
    return columns
