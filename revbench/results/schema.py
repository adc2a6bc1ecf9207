"""The records of a run and their form in ``rows.jsonl``; what is read is data from strangers and checked as such."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from revbench.case import Case
from revbench.errors import UserError
from revbench.words import STATUSES

SCHEMA_VERSION = 1
SERIES_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*\.jsonl?")

Metric = float | int | str | None
Key = tuple[str, str, int, str]  # case, probe, launch, digest of the options


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one probe found on one case in one repeat.

    Attributes:
        case: what was measured.
        probe: a key of `revbench.runner.worker.PROBES` or `PROBES_OF_GROUPS`.
        repeat: number of the launch, from 1.
        status: ``ok``, ``oom``, ``timeout``, ``crashed`` or ``unsupported``.
        environment_id: of the environment record in the same file.
        started: UTC, ISO 8601.
        elapsed_seconds: of the worker, from fork to result.
        options: the probe's settings.
        metrics: figures with units in their names; empty unless the status is ``ok``.
        samples: every sample that a figure summarises.
        series: name of a file in the folder ``series``, or None.
        message: why the status is not ``ok``.
    """

    case: Case
    probe: str
    repeat: int
    status: str
    environment_id: str
    started: str
    elapsed_seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    series: str | None = None
    message: str | None = None

    @property
    def key(self) -> Key:
        """What a resumed run recognises this row by."""
        return key_of(self.case, self.probe, self.repeat, self.options)

    @property
    def ok(self) -> bool:
        """Whether there are figures."""
        return self.status == "ok"

    def number(self, name: str) -> float | None:
        """A metric as a finite number, or None where there is none."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

    def to_json(self) -> dict[str, Any]:
        """The line of this row, as a dict."""
        return {"kind": "row", "case_id": self.case.id, **asdict(self), "case": self.case.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Row:
        """The row of a line.

        Raises:
            UserError: a field is missing, unknown or of the wrong type.
        """
        fields = {k: v for k, v in record.items() if k not in ("kind", "case_id")}
        _expect(isinstance(fields.get("case"), dict), "case must be an object")
        for name in ("probe", "status", "environment_id", "started"):
            _expect(isinstance(fields.get(name), str), f"{name} must be a string")
        _expect(fields["status"] in STATUSES, f"status {fields['status']!r} is not one of {', '.join(STATUSES)}")
        _expect(type(fields.get("repeat")) is int and fields["repeat"] >= 1, "repeat must be an integer of at least 1")
        _expect(type(fields.get("elapsed_seconds")) in (int, float), "elapsed_seconds must be a number")
        for name in ("options", "metrics", "samples"):
            _expect(isinstance(fields.get(name, {}), dict), f"{name} must be an object")
        for name, value in fields.get("metrics", {}).items():
            allowed = is_figure(value) or isinstance(value, str)
            _expect(allowed, f"metric {name} must be a finite number, a string or null")
        for name, values in fields.get("samples", {}).items():
            numbers = isinstance(values, list) and all(v is not None and is_figure(v) for v in values)
            _expect(numbers, f"samples of {name} must be a list of finite numbers")
        series, message = fields.get("series"), fields.get("message")
        _expect(series is None or (isinstance(series, str) and SERIES_NAME.fullmatch(series) is not None),
                "series must be the name of a file in the folder series")  # fmt: skip
        _expect(message is None or isinstance(message, str), "message must be a string or null")
        unknown = set(fields) - set(cls.__dataclass_fields__)
        _expect(not unknown, f"unknown field {', '.join(sorted(unknown))}")
        return cls(**{**fields, "case": Case.from_json(fields["case"])})


def key_of(case: Case, probe: str, repeat: int, options: Mapping[str, Any]) -> Key:
    """What a measurement is recognised by: the same case with other options of the probe is another one.

    A training is recognised without them: it may go on with another number of evaluations.
    """
    if not options or probe == "training":
        return case.id, probe, repeat, ""
    digest = sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return case.id, probe, repeat, digest[:8]


def is_figure(value: object) -> bool:
    """Whether a value from a file is None or a number that arithmetic can be done with."""
    return value is None or (type(value) in (int, float) and -1e300 < value < 1e300)  # type: ignore[operator]


def check_environment(record: Mapping[str, Any]) -> None:
    """Raise a `UserError` unless an environment record holds what a report shows of it."""
    shape: dict[str, type] = {
        "environment_id": str, "cpu": dict, "memory_bytes": int, "accelerators": list, "system": str, "python": str,
        "packages": dict, "torch": dict,
    }  # fmt: skip
    for name, kind in shape.items():
        _expect(type(record.get(name)) is kind, f"environment: {name} is missing or of the wrong type")
    for name in ("model", "logical_cores", "usable_cores", "capability"):
        _expect(name in record["cpu"], f"environment: cpu has no {name}")
    _expect("torch" in record["packages"], "environment: packages has no torch")
    _expect("threads" in record["torch"], "environment: torch has no threads")
    _expect(is_figure(record["memory_bytes"]), "environment: memory_bytes is no size")
    for accelerator in record["accelerators"]:
        whole = isinstance(accelerator, dict) and {"name", "memory_bytes", "driver"} <= accelerator.keys()
        _expect(whole and is_figure(accelerator["memory_bytes"]), "environment: an accelerator is not described")


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise UserError(problem)
