"""What a worker process does: apply a case's settings, run one probe, say how it ended."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from revbench.case import Case
from revbench.errors import UserError, first_line
from revbench.probes.declaration import Probe
from revbench.probes.measurement import MOST_LETTERS, Measurement, finite_or_null, is_finite
from revbench.results.wire import decode_columns
from revbench.runner.registry import OURS, probe_of, registry
from revbench.runner.settings import Settings

if TYPE_CHECKING:
    from revbench.workload import Workload

Send = Callable[[Mapping[str, Any]], None]


def work(request: Mapping[str, Any], send: Send) -> None:
    """Answer one request; the last message sent has ``kind`` ``result``.

    Args:
        request: ``task`` (``environment`` or ``probe``); for a probe also ``cases``, ``probe``, ``options``, ``variables`` of the
            environment and ``sys_path``, on which factories are looked for (see `revbench.imports.path_for`).
        send: takes messages: ``{"kind": "progress", ...}`` and ``{"kind": "alive", "patience_seconds": ...}`` any number of
            times, then the result.
    """
    os.environ.update(request.get("variables", {}))
    asked = request.get("sys_path", [])
    sys.path[:] = [*asked, *(entry for entry in sys.path if entry not in asked)]
    try:
        if request["task"] == "environment":
            from revbench.runner.environment import describe_environment

            send({"kind": "result", "status": "ok", "environment": describe_environment()})
            return
        send({"kind": "result", **_probe(request, send)})
    except UserError as error:
        send({"kind": "result", "status": "refused", "message": str(error)})
    except BaseException as error:  # whatever it was becomes a row, and the run goes on
        traceback.print_exc()
        send({"kind": "result", "status": classify(error), "message": f"{_whose(request)}{_one_line(error)}"})


def _whose(request: Mapping[str, Any]) -> str:
    """Names the package whose probe was asked for, unless it is ours."""
    probe = request.get("probe")
    package = registry().packages.get(probe) if probe is not None else None
    return f"probe {probe} of the package {package}: " if package is not None else ""


def _probe(request: Mapping[str, Any], send: Send) -> dict[str, Any]:
    cases = [Case.from_json(fields) for fields in request["cases"]]
    settings = Settings(cases[0])
    settings.begin()
    probe = probe_of(request["probe"])
    module, _, function = probe.function.partition(":")
    built = _build(cases)
    workloads = [one for one in built if not isinstance(one, Exception)]
    settings.apply()
    talks: dict[str, Any] = {"progress": first_checked(settings, lambda message: send({"kind": "progress", **message}))}
    with _nobody_refuses() if probe.name not in OURS else nullcontext():
        measure: Any = functools.reduce(getattr, function.split("."), importlib.import_module(module))
        asked = inspect.signature(measure).parameters
        if "alive" in asked:  # of a probe that takes long between two messages
            talks["alive"] = lambda patience: send({"kind": "alive", "patience_seconds": patience})
        if "device_before" in asked:  # of one that wants to know what was in use before this process was there
            talks["device_before"] = settings.device_before
        found = measure(workloads if probe.takes_group else workloads[0], **talks, **request["options"])
        settings.check()
        measurements: Sequence[Measurement | Exception] = found if probe.takes_group else [found]
        if probe.name not in OURS:
            check_measurements(measurements, probe, len(workloads))
    left = iter(measurements)
    answers = [_answer(one if isinstance(one, Exception) else next(left)) for one in built]
    of_all = answers[0] if len(answers) == 1 else {"status": "ok"}
    return {**{name: of_all[name] for name in ("status", "message") if name in of_all}, "measurements": answers}


def _build(cases: Sequence[Case]) -> list[Workload | Exception]:
    """Returns the workloads of a group, or why one can't be built: the others are measured without it.

    Raises:
        UserError: a mistake in one of them.
        Exception: what building raises, if all fail.
    """
    from revbench.workload import build_workload

    found: list[Workload | Exception] = []
    for case in cases:
        try:
            found.append(build_workload(case))
        except UserError:
            raise
        except Exception as error:
            traceback.print_exc()
            found.append(error)
    if all(isinstance(one, Exception) for one in found):
        raise next(one for one in found if isinstance(one, Exception))
    return found


def _answer(found: Measurement | Exception) -> dict[str, Any]:
    """Returns the measurement of one case, or why there is none."""
    if isinstance(found, Exception):
        return {"status": classify(found), "message": _one_line(found)}
    return {"status": "ok", **as_json(found)}


def first_checked(settings: Settings, progress: Send) -> Send:
    """Has the settings looked at with the first message of what takes long, too, and not after hours only."""
    looks = iter((settings.check,))

    def told(message: Mapping[str, Any]) -> None:
        next(looks, lambda: None)()
        progress(message)

    return told


@contextmanager
def _nobody_refuses() -> Iterator[None]:
    """Makes a row of what another package finds wrong: only our own word ends a run."""
    try:
        yield
    except UserError as error:
        raise RuntimeError(str(error)) from error


def as_json(found: Measurement) -> dict[str, Any]:
    """Returns a measurement as plain values that a row can hold: what is not finite is null, metrics with the reason."""
    metrics: dict[str, Any] = {}
    for name, value in found.metrics.items():
        metrics[name] = finite_or_null(value)
        if isinstance(value, str):
            metrics[name] = value[:MOST_LETTERS]
        if metrics[name] is None and value is not None:
            metrics[f"{name}_reason"] = f"the value is {value}"
    return {
        "metrics": metrics,
        "samples": {name: [v for v in values if is_finite(v)] for name, values in found.samples.items()},
        "series": {name: [finite_or_null(value) for value in values] for name, values in found.series.items()},
    }


def check_measurements(found: object, probe: Probe, count: int) -> None:
    """See that a probe of another package returned a measurement of what it declares for each of so many cases.

    Raises:
        TypeError: it is something else.
        ValueError: it has what is not declared, or is of fewer or more cases.
    """
    if not isinstance(found, (list, tuple)):
        raise TypeError(f"it returned a {type(found).__name__}, not a list of revbench.probes.Measurement")
    if len(found) != count:
        raise ValueError(f"it returned {len(found)} measurements of {count} cases")
    for one in found:
        check_measurement(one, probe)


def check_measurement(found: object, probe: Probe) -> None:
    """See that what a probe of another package returned is a measurement of what it declares.

    Raises:
        TypeError: it is something else.
        ValueError: it has what is not declared.
    """
    if not isinstance(found, Measurement):
        raise TypeError(f"it returned a {type(found).__name__}, not a revbench.probes.Measurement")
    for name, value in found.metrics.items():
        if not probe.declares(name):
            raise ValueError(f"it returned a metric {name!r} that it does not declare")
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float, str))):
            raise TypeError(f"it returned {name}={str(value)[:60]}, which is no number and no word")
    for name, values in found.samples.items():
        if not (probe.declares(name) or name in probe.samples):
            raise ValueError(f"it returned samples of {name!r}, which it does not declare")
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            raise TypeError(f"it returned samples of {name} that are no numbers")
    if found.series:
        try:
            decode_columns(json.dumps({name: list(column) for name, column in found.series.items()}).encode())
        except UserError as error:
            raise ValueError(f"it returned a series that is none: {error}") from error


def classify(error: BaseException) -> str:
    """Returns the status of a row whose probe raised this: ``oom``, ``unsupported`` or ``crashed``."""
    from revbench.devices.memory import is_out_of_memory

    if is_out_of_memory(error):
        return "oom"
    if isinstance(error, NotImplementedError):
        return "unsupported"
    return "crashed"


def _one_line(error: BaseException) -> str:
    from revbench.workload import error_line

    return f"{type(error).__name__}: {first_line(error)[:300]}" if classify(error) == "oom" else error_line(error)
