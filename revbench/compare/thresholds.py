"""What fails a gate, as a person writes it: ``peak_bytes > 5.5%``, ``peak_bytes @ *revnet* > 2GiB``."""

from __future__ import annotations

import glob
import math
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from revbench.errors import UserError
from revbench.probes import Metric
from revbench.probes.declared import TIME
from revbench.runner.registry import OURS, metric_named
from revbench.units import BYTES, RATIO, parse_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TO_STORED = Metric(
    "time_to_stored",
    RATIO,
    "step of a strategy over that of stored",
    "time",
    "lower",
    "Time to stored",
    probe=TIME.name,
)

_FORM = re.compile(r"\s*([\w.]+)\s*(?:@\s*(\S+)\s*)?([<>])\s*(\S.*?)\s*\Z")
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_HELP = "give METRIC > 5.5%, METRIC > 2GiB, or METRIC @ PATTERN > …, as peak_bytes @ *revnet* > 5.5%"


@dataclass(frozen=True)
class Threshold:
    """What a metric may not do.

    Attributes:
        metric: whose threshold it is.
        pattern: of the ids of the cases that it is for, as a shell's.
        change: the share by which it may get worse; None of a limit.
        limit: the value that it may not pass; None of a change.
        text: as it was written.
        of_test: whether it is for one case, as a test measured it; that case may be new.
    """

    metric: Metric
    pattern: str
    change: float | None
    limit: float | None
    text: str
    of_test: bool = False

    def is_for(self, metric: Metric, case_id: str) -> bool:
        """Tells whether it is of this metric of this case."""
        return metric == self.metric and fnmatchcase(case_id, self.pattern)

    def for_case(self, case_id: str) -> Threshold:
        """Returns the same for one case that a test measured."""
        return replace(self, pattern=glob.escape(case_id), of_test=True)


def parse_threshold(text: str) -> Threshold:
    """Returns what a person wrote.

    Raises:
        UserError: another form, no metric of this name, or a direction in which the metric gets better.
    """
    found = _FORM.match(text)
    if found is None:
        raise UserError(f"threshold {text!r}: {_HELP}")
    name, pattern, sign, bound = found.groups()
    metric = _metric(name, text)
    worse = ">" if metric.better == "lower" else "<"
    if sign != worse:
        raise UserError(f"threshold {text!r}: {metric.name} gets worse when it grows {worse} a bound; write {worse}")
    change = limit = None
    if bound.endswith("%"):
        change = _number(bound[:-1], text) / 100
    elif metric.unit is BYTES and not re.fullmatch(r"[\d.e+]+", bound):
        try:
            limit = float(parse_bytes(bound))
        except UserError as error:
            raise UserError(f"threshold {text!r}: {error}") from error
    else:
        number, factor = bound, 1.0
        if metric.name.endswith("_seconds") and (seconds := re.fullmatch(r"(.*?)\s*(s|ms|us|µs)", bound)):
            number, factor = seconds[1], _SECONDS[seconds[2]]
        limit = _number(number, text) * factor
    return Threshold(metric, pattern or "*", change, limit, " ".join(text.split()))


def _number(text: str, whole: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"threshold {whole!r}: {text.strip()!r} is no bound; {_HELP}")
    return value


def _metric(name: str, text: str) -> Metric:
    """Returns a metric by its name, of which one direction is better."""
    try:
        return metric_named(name, OURS, lambda metric: metric.better is not None, also=[TO_STORED])
    except UserError as error:
        raise UserError(f"threshold {text!r}: {error}") from error


def thresholds_of(texts: Iterable[str]) -> list[Threshold]:
    """Returns some of them; see `parse_threshold`."""
    return [parse_threshold(text) for text in texts]


def thresholds_of_project(folder: Path) -> list[Threshold]:
    """Returns those of ``[tool.revbench.gate]`` in the ``pyproject.toml`` of a folder, or of the nearest above it that has one:
    ``fail-on = ["peak_bytes > 5.5%", …]``.

    Raises:
        UserError: a file that can't be read, or something else in its table.
    """
    file = next((f for parent in (folder, *folder.parents) if (f := parent / "pyproject.toml").is_file()), None)
    if file is None:
        return []
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file.name} can't be read: {error}") from error
    table: Any = content.get("tool", {}).get("revbench", {}).get("gate", {})
    if not isinstance(table, dict) or set(table) - {"fail-on"}:
        names = ", ".join(sorted(set(table) - {"fail-on"})) if isinstance(table, dict) else "something else"
        raise UserError(f"{file.name}: [tool.revbench.gate] holds {names}; it may hold fail-on, a list of thresholds")
    texts = table.get("fail-on", [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{file.name}: fail-on of [tool.revbench.gate] is no list of strings; {_HELP}")
    return thresholds_of(texts)


def check_patterns(thresholds: Sequence[Threshold], measured: Iterable[tuple[str, str]], where: str) -> None:
    """See that each threshold is for something.

    Args:
        thresholds: of the gate.
        measured: probes and ids of the cases that there are.
        where: what holds them, in words.

    Raises:
        UserError: one that is not a test's matches no case of its probe.
    """
    there = set(measured)
    for one in thresholds:
        if not one.of_test and not any(
            probe == one.metric.probe and fnmatchcase(case, one.pattern) for probe, case in there
        ):
            raise UserError(
                f"threshold {one.text!r} is for no case: {where} has no {one.metric.probe} of {one.pattern!r}; look at the"
                f" pattern, or measure it with --probe {one.metric.probe}"
            )
