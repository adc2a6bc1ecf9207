"""Seconds of a training step and of its phases."""

from __future__ import annotations

import itertools
import math
import random
import resource
import secrets
import statistics
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from revbench.errors import UserError
from revbench.probes.baton import Baton, move_to_first_core
from revbench.probes.declared import PHASES
from revbench.probes.machine_load import MachineLoad
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.probes.nvml import Reading
from revbench.workload import Workload

TURN_SECONDS = 0.1
LEAST_TURNS = 5  # by so many a ratio can be told with an interval
_UNTOLD = Reading(None, "another version of the code took its turns meanwhile")
MOST_STEPS = 64  # of a turn: a GPU's queue would run ahead of the clock


def measure_time(
    workloads: Sequence[Workload],
    *,
    progress: Progress,
    min_rounds: int = 5,
    max_seconds: float = 2.0,
    warmup_rounds: int = 2,
    baton: Mapping[str, Any] | None = None,
) -> list[Measurement | Exception]:
    """Times whole training steps of some workloads that take turns, so that what slows the machine slows them all.

    A turn is some steps of one workload, about `TURN_SECONDS` long. In each round every workload has one turn, in an order that
    is drawn anew, so that nobody always follows the same neighbour. Where a turn has several steps, one more
    before them is not counted: it finds the caches as the neighbour left them, and a GPU without a queue. On a GPU steps are
    timed by device events, read at the end of a turn, so that no synchronisation stands between the launches of a turn; on the
    CPU by the monotonic clock. One timed pass gives the step and its phases, and every sample is kept.

    Args:
        workloads: what to time, on one device; one alone has turns, too.
        progress: not called: a timed pass reports nothing until it is over.
        min_rounds: steps of each at least.
        max_seconds: begin no further round after this for each of them, once there are `min_rounds`.
        warmup_rounds: steps of each before the first counted one.
        baton: of another process whose workloads take turns with these, turn by turn; see `revbench.probes.baton.Baton`.

    Returns:
        For each workload metrics ``step_seconds``, ``forward_seconds``, ``backward_seconds``, ``optimizer_seconds`` (medians over
        the steps), ``items_per_second`` and ``item``, ``rounds``, ``turns``, ``steps_per_turn``, ``cases_in_turn``, ``session``
        (the same word for all that took turns), ``minor_faults_per_step`` and what else the machine did
        (`revbench.probes.machine_load`); on a GPU also its clocks while steps are queued, how many other processes compute on
        it, and the share of the step in which a kernel ran.
        Samples for each of the seconds, turn after turn. Or what a workload raised that ran out of memory, can't be run or
        diverged (`FloatingPointError`): the others take their turns without it.
    """
    other = Baton(baton) if baton is not None else None
    given = other.begin() if other is not None else {}
    failed: dict[int, Exception] = {}
    there: dict[int, _Timed] = {}
    for number, workload in enumerate(workloads):
        with _left_out(number, failed):
            turn_seconds = min(TURN_SECONDS, max_seconds / LEAST_TURNS)
            there[number] = _Timed(workload, warmup_rounds, turn_seconds, given.get(number))
    session = other.session if other is not None else secrets.token_hex(4)
    with MachineLoad() as load:
        _take_turns(there, failed, random.Random(session), min_rounds, max_seconds, other)
    around = load.metrics if other is None else {**load.metrics, **_UNTOLD.metrics("other_cpu_cores")}
    measured: dict[int, Measurement] = {}
    for number, timed in there.items():
        with _left_out(number, failed):
            one = timed.measurement()
            common = {"cases_in_turn": len(there), "session": session, **around}
            measured[number] = Measurement({**one.metrics, **common}, one.samples)
    if other is not None:
        other.leave()
    return [measured.get(number) or failed[number] for number in range(len(workloads))]


@contextmanager
def _left_out(number: int, failed: dict[int, Exception]) -> Iterator[None]:
    """Notes what a workload raises, which becomes a row of its own, and lets go of what it held."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        traceback.print_exc()
        failed[number] = error.with_traceback(None)


def _take_turns(
    there: dict[int, _Timed],
    failed: dict[int, Exception],
    generator: random.Random,
    min_rounds: int,
    max_seconds: float,
    other: Baton | None,
) -> None:
    """Let each have turns until there are enough; whoever fails is left out from then on."""
    least_turns = min(LEAST_TURNS, min_rounds)
    spent = 0.0
    if other is not None:
        other.meet({number: one.steps_per_turn for number, one in there.items()})
    while there and (
        any(one.turns < least_turns or one.steps < min_rounds for one in there.values())
        or spent < max_seconds * len(there)
    ):
        for number in generator.sample(sorted(there), len(there)):
            if other is not None:
                move_to_first_core()
            began = time.perf_counter()
            with _left_out(number, failed):
                there[number].take_turn(alone=len(there) == 1 and other is None, lead=other is None)
            spent += time.perf_counter() - began
            if other is not None:
                other.hand_over()
        for number in failed.keys() & there.keys():
            del there[number]


class _Timed:
    """One workload with the seconds of its steps.

    Args:
        workload: what to time.
        warmup_rounds: steps that are taken at once and not counted.
        turn_seconds: how long a turn should take.
        steps_per_turn: how many steps it has, if that is not to follow from it.
    """

    def __init__(
        self, workload: Workload, warmup_rounds: int, turn_seconds: float, steps_per_turn: int | None = None
    ) -> None:
        self._workload = workload
        self._inputs, self._targets = workload.batch()
        self._seconds: list[list[float]] = []
        self._faults = 0
        self.turns = 0
        lasted = math.inf
        for _ in range(warmup_rounds):
            self._wait()
            began = time.perf_counter()
            self._step(_HostMarks())
            self._wait()
            lasted = time.perf_counter() - began
        self._workload.optimizer.zero_grad(set_to_none=True)
        self.steps_per_turn = steps_per_turn or min(max(round(turn_seconds / lasted), 1), MOST_STEPS)

    @property
    def steps(self) -> int:
        """How many were counted."""
        return len(self._seconds)

    def take_turn(self, *, alone: bool, lead: bool) -> None:
        """Take the steps of a turn, and leave no gradients behind that the others would have to live with.

        Args:
            alone: nobody else has turns.
            lead: begin with a step that is not counted, if there are several; two versions that take turns find the caches alike.
        """
        self._wait()
        if lead and self.steps_per_turn > 1 and (self._workload.case.on_gpu or not alone):
            self._step(_HostMarks())
        marks: list[_Marks] = []
        faults = _minor_faults()
        for _ in range(self.steps_per_turn):
            marks.append(_DeviceMarks() if self._workload.case.on_gpu else _HostMarks())
            self._step(marks[-1])
        self._wait()
        self._faults += _minor_faults() - faults
        self._seconds += [one.seconds() for one in marks]
        self.turns += 1
        if not alone:
            self._workload.optimizer.zero_grad(set_to_none=True)

    def measurement(self) -> Measurement:
        """Returns medians over the steps, and every sample.

        Raises:
            FloatingPointError: the steps diverged.
        """
        _refuse_divergence(self._workload, self._inputs, self._targets)
        samples = {f"{phase}_seconds": [s[i] for s in self._seconds] for i, phase in enumerate(PHASES)}
        samples["step_seconds"] = [sum(s) for s in self._seconds]
        metrics: dict[str, Value] = {name: statistics.median(values) for name, values in samples.items()}
        metrics |= {
            "rounds": self.steps, "turns": self.turns, "steps_per_turn": self.steps_per_turn,
            "minor_faults_per_step": self._faults / self.steps, "item": self._workload.case.item,
        }  # fmt: skip
        if metrics["step_seconds"]:
            metrics["items_per_second"] = self._workload.case.items / statistics.median(samples["step_seconds"])
        if self._workload.case.on_gpu:
            from revbench.probes.gpu_load import gpu_load

            metrics |= gpu_load(self._workload, self._inputs, self._targets, statistics.median(samples["step_seconds"]))
            self._workload.optimizer.zero_grad(set_to_none=True)
        return Measurement(metrics, samples)

    def _step(self, marks: _Marks) -> None:
        marks.mark()
        loss = self._workload.forward(self._inputs, self._targets)
        marks.mark()
        loss.backward()
        marks.mark()
        self._workload.optimizer.step()
        marks.mark()

    def _wait(self) -> None:
        if self._workload.case.on_gpu:
            torch.cuda.synchronize()


def _refuse_divergence(workload: Workload, inputs: Any, targets: Any) -> None:
    """Raise if the steps led to NaN, which takes another time than numbers do.

    Raises:
        FloatingPointError: the loss is not finite any more.
    """
    loss = workload.forward(inputs, targets).item()
    if not math.isfinite(loss):
        rate = workload.case.learning_rate
        mend = (
            f"choose a smaller learning rate than {rate:g}" if rate else "look at the network, its loss and its batch"
        )
        raise FloatingPointError(f"the loss is {loss} after the steps that were timed; {mend}")


def _minor_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


class _HostMarks:
    def __init__(self) -> None:
        self._times: list[float] = []

    def mark(self) -> None:
        self._times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self._times)]


class _DeviceMarks:
    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self._events.append(event)

    def seconds(self) -> list[float]:
        return [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(self._events)]


_Marks = _HostMarks | _DeviceMarks
