"""How a probe is declared: one object that says what it measures, by which function, and which metrics it has.

A declaration imports no torch, so that a command line, a report and a pytest plugin can read it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import Any, Literal, get_args

from revbench.errors import UserError, first_line, unknown
from revbench.units import WORDS, Unit

Better = Literal["lower", "higher"] | None

# count: the same whenever and wherever it is counted.
# bytes: of tensors, the same whenever the same step is run in the same way.
# process bytes: of a process or a device, with libraries, caches and neighbours in them.
# time: scatters from launch to launch.  energy: does, too.
# drift: of a gradient or of activations; scatters over draws of weights and batch.
# accuracy: of a trained network; scatters over seeds.
# circumstance: of the measurement or of the machine; no result.
Kind = Literal["count", "bytes", "process bytes", "time", "energy", "drift", "accuracy", "circumstance"]

SUMMARIES = ("q05", "q95", "low", "high")  # of a metric that is a median over draws, see `revbench.numerics.statistics`


@dataclass(frozen=True)
class Metric:
    """One quantity that a probe finds, declared once.

    Attributes:
        name: as rows have it, with the unit in it (``step_seconds``).
        unit: what it counts, and how a person reads it.
        about: what it is, for the reference: a clause without a full stop.
        kind: whether and how it scatters.
        better: which direction is an improvement; None if neither is.
        head: what the head of a table calls it; its name in words if empty.
        summarised: rows also have ``<name>_q05`` and the others of `SUMMARIES`.
        probe: the name of the probe that declares it; `Probe` sets it.
    """

    name: str
    unit: Unit
    about: str = ""
    kind: Kind = "circumstance"
    better: Better = None
    head: str = ""
    summarised: bool = False
    probe: str = ""

    @property
    def title(self) -> str:
        """What the head of a table calls it."""
        return self.head or self.name.replace("_", " ")

    @property
    def exact(self) -> bool:
        """Whether it is the same whenever the same step is run in the same way."""
        return self.kind in ("count", "bytes")

    def show(self, value: object) -> str | None:
        """Returns a value as a person reads it; None if it is none of this metric's."""
        if self.unit is WORDS:
            return str(value) if isinstance(value, str) and value else None
        return self.unit.show(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _nothing(repeat: int) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What can be measured of a case; the constructor only stores, `check` says what is wrong.

    Attributes:
        name: by which commands, suites and rows call it.
        function: ``package.module:function`` that measures. It is called in a worker as
            ``function(workload, progress=…, **options)`` and returns a `revbench.probes.Measurement`.
        sentence: what it measures: a clause that begins with a lower-case letter and has no full stop.
        metrics: all that its measurements may have.
        lines: what the terminal shows of a measurement, with metrics in braces; the first line of which all metrics are there.
        takes_group: the function takes a list of workloads and returns a list of measurements: all are measured in one process.
        resumable: it writes a series and checkpoints into the run folder as it goes, and goes on where it was.
        by_default: `revbench run` measures it unless told otherwise.
        private_options: names of options that say where things lie on this machine, or change no metric; rows leave them out.
        options_of_launch: options that it has where nobody gives others, by the number of the launch.
        series: columns of its series.
        samples: names of samples that are no metric's.
    """

    name: str
    function: str
    sentence: str
    metrics: Sequence[Metric]
    lines: Sequence[str] = ()
    takes_group: bool = False
    resumable: bool = False
    by_default: bool = False
    private_options: Sequence[str] = ()
    options_of_launch: Callable[[int], Mapping[str, Any]] = _nothing
    series: Sequence[str] = ()
    samples: Sequence[str] = ()
    _by_name: Mapping[str, Metric] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        metrics = tuple(dataclasses.replace(metric, probe=self.name) for metric in self.metrics)
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "_by_name", {metric.name: metric for metric in metrics})

    def check(self) -> Probe:
        """Say what is wrong with a declaration.

        Returns:
            The probe itself.

        Raises:
            UserError: a name that can't be, a metric that is declared twice, a line that names another metric, or a value of
                another type than its attribute has.
        """
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", str(self.name)):
            raise UserError(f"a probe can't be called {self.name!r}; give lower-case letters, digits and underscores")
        if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", str(self.function)):
            raise UserError(f"probe {self.name}: function={self.function!r} is no package.module:function")
        if not isinstance(self.sentence, str) or not self.sentence or "\n" in self.sentence:
            raise UserError(f"probe {self.name}: sentence={self.sentence!r} is no sentence")
        for attribute in ("lines", "private_options", "series", "samples"):
            value = getattr(self, attribute)
            if isinstance(value, str) or not all(isinstance(word, str) for word in value):
                raise UserError(f"probe {self.name}: {attribute}={value!r} is no list of strings")
        self._check_metrics()
        for line in self.lines:
            for name, form, conversion in _fields_in(line):
                if form or conversion:
                    raise UserError(f"probe {self.name}: a line has {{{name}}} alone, without a format: {line!r}")
                self[name]
        self.launch_options(1)
        return self

    def _check_metrics(self) -> None:
        for name, count in Counter(metric.name for metric in self.metrics).items():
            if count > 1:
                raise UserError(f"probe {self.name} declares the metric {name} twice")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", str(name)):
                raise UserError(f"probe {self.name}: a metric can't be called {name!r}")
        for metric in self.metrics:
            if not isinstance(metric.unit, Unit):
                raise UserError(
                    f"probe {self.name}: the unit of {metric.name} is no revbench.units.Unit: {metric.unit!r}"
                )
            for attribute, known in (("kind", get_args(Kind)), ("better", ("lower", "higher", None))):
                if (value := getattr(metric, attribute)) not in known:
                    raise UserError(f"probe {self.name}: {attribute}={value!r} of {metric.name} is none of {known}")

    def launch_options(self, repeat: int) -> dict[str, Any]:
        """Returns the options that a launch has where nobody gives others.

        Raises:
            UserError: what the declaration has for this raises, or gives something else.
        """
        try:
            return dict(self.options_of_launch(repeat))
        except Exception as error:  # of a stranger's function, which may do anything
            raise UserError(
                f"probe {self.name}: options_of_launch({repeat}) fails: {type(error).__name__}: {first_line(error)[:300]}"
            ) from error

    def __getitem__(self, name: str) -> Metric:
        """A metric by its name; asking for one that is not declared is a mistake.

        Raises:
            UserError: there is none of this name.
        """
        if name not in self._by_name:
            raise unknown(f"metric of the probe {self.name}", name, self._by_name)
        return self._by_name[name]

    def declares(self, name: str) -> bool:
        """Tells whether a row of this probe may have a metric of this name: a declared one, its reason, or one of its
        summaries."""
        bare = name.removesuffix("_reason")
        if bare in self._by_name:
            return True
        stem, _, summary = bare.rpartition("_")
        return summary in SUMMARIES and stem in self._by_name and self._by_name[stem].summarised

    def to_json(self) -> dict[str, Any]:
        """Returns the declaration as plain values."""
        metrics = [
            {"name": m.name, "about": m.about, "unit": m.unit.name, "kind": m.kind, "better": m.better}
            for m in self.metrics
        ]
        return {
            "name": self.name, "function": self.function, "sentence": self.sentence, "takes_group": self.takes_group,
            "resumable": self.resumable, "by_default": self.by_default, "metrics": metrics, "series": list(self.series),
        }  # fmt: skip

    def line(self, metrics: Mapping[str, Any]) -> str:
        """Returns what the terminal shows of a row's metrics."""
        for line in self.lines or (_all_of(self.metrics, metrics),):
            shown = {name: self[name].show(metrics.get(name)) for name, _, _ in _fields_in(line)}
            if None not in shown.values():
                return line.format_map(shown)
        reasons = [f"{name}: {value}" for name, value in metrics.items() if name.endswith("_reason")]
        return "; ".join(reasons) or "no metric that a line is made of"


def _fields_in(line: str) -> list[tuple[str, str, str]]:
    """Returns each name in braces, with what stands behind its colon and its exclamation mark.

    Raises:
        UserError: braces that do not match.
    """
    try:
        return [(name, form or "", how or "") for _, name, form, how in Formatter().parse(line) if name is not None]
    except ValueError as error:
        raise UserError(f"the line {line!r}: {error}") from error


def _all_of(declared: Sequence[Metric], metrics: Mapping[str, Any]) -> str:
    """Returns a line of the first metrics that are there."""
    there = [m for m in declared if m.show(metrics.get(m.name)) is not None]
    return ", ".join(f"{metric.title} {{{metric.name}}}" for metric in there[:4])
