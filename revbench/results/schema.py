"""The records of a run; `revbench.results.wire` has the form in which they are read from files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from revbench.case import Case
from revbench.probes.declared import DRIFT
from revbench.probes.measurement import Value

SCHEMA_VERSION = 1

# Of the format of a run since its first version: a training may go on with another number of evaluations.
KEYED_WITHOUT_OPTIONS = frozenset(("training",))

Key = tuple[str, str, int, str]  # case, probe, launch, digest of the options


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one probe found on one case in one repeat.

    Attributes:
        case: what was measured.
        probe: the name of one (`revbench.runner.registry`).
        repeat: number of the launch, from 1.
        status: ``ok``, ``oom``, ``timeout``, ``crashed`` or ``unsupported``.
        environment_id: of the environment record in the same file.
        started: UTC, ISO 8601.
        elapsed_seconds: of the worker, from fork to result.
        options: the probe's settings.
        metrics: metrics with units in their names; empty unless the status is ``ok``.
        samples: every sample that a metric summarises.
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
    metrics: Mapping[str, Value] = field(default_factory=dict)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    series: str | None = None
    message: str | None = None

    @property
    def key(self) -> Key:
        """What a resumed run recognises this row by."""
        return key_of(self.case, self.probe, self.repeat, self.options)

    @property
    def ok(self) -> bool:
        """Whether there are metrics."""
        return self.status == "ok"

    def number(self, name: str) -> float | None:
        """Returns a metric as a finite number, or None where there is none."""
        value = self.metrics.get(name)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None

    def to_json(self) -> dict[str, Any]:
        """Returns the line of this row, as a dict."""
        return {"kind": "row", "case_id": self.case.id, **asdict(self), "case": self.case.to_json()}


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """By what rows were measured.

    Attributes:
        environment_id: of the environment record in the same file.
        started: UTC, ISO 8601.
        command: as it was typed; of paths only the last part.
        commit: of the checkout that revbench was run from; None if it was installed otherwise.
        changed: whether files of the package differed from it.
    """

    environment_id: str
    started: str
    command: str
    commit: str | None = None
    changed: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the line of this record, as a dict."""
        return {"kind": "invocation", **asdict(self)}


def standing(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows but for those without metrics that were measured again, on the same machine, with metrics."""
    again = {(row.environment_id, row.key) for row in rows if row.ok} if any(not row.ok for row in rows) else set()
    return [row for row in rows if row.ok or (row.environment_id, row.key) not in again]


def with_own_draws(rows: Iterable[Row]) -> list[Row]:
    """Returns the rows but for those of further launches that drew the same: they say the same again, and are no evidence."""
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        drawn = row.options.get("draws", row.metrics.get(DRIFT["draws"].name)) if row.probe == DRIFT.name else None
        first = row.options.get("first_draw", 0)
        seen.setdefault((repr(first), repr(drawn)) if drawn else (row.environment_id, repr(row.repeat), ""), row)
    return list(seen.values())


def key_of(case: Case, probe: str, repeat: int, options: Mapping[str, Any]) -> Key:
    """Returns what a measurement is recognised by: the same case with other options of the probe is another one.

    Those of `KEYED_WITHOUT_OPTIONS` are recognised without them.
    """
    if not options or probe in KEYED_WITHOUT_OPTIONS:
        return case.id, probe, repeat, ""
    digest = sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return case.id, probe, repeat, digest[:8]
