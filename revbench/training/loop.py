"""The training loop: short, deterministic, resumable, with a line of values for every step."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from revbench.case import DEFAULT_IMAGE_SIZE
from revbench.errors import UserError
from revbench.numerics.monitor import DriftMonitor
from revbench.probes.measurement import Measurement, Progress, Value, finite_or_null
from revbench.training.batches import Batch, Facts
from revbench.training.checkpoint import weights_sha256
from revbench.training.declared import TRAINING
from revbench.training.loaders import named_failures
from revbench.training.meter import Meter, values_later
from revbench.training.ranks import Ranks, joined
from revbench.training.record import TrainingRecord
from revbench.training.series_file import SeriesFile
from revbench.training.sources import DIGITS
from revbench.training.steps import Training
from revbench.training.supplies import open_supply
from revbench.workload import Workload

Line = dict[str, Value]
UNPACKING_SECONDS = 24 * 3600.0  # that a data set may take to be fetched, unpacked and decoded
SHOWN = ("loss", "error", "step_seconds", "peak_bytes", "angle_degrees")


def measure_training(
    workload: Workload,
    *,
    progress: Progress,
    alive: Callable[[float], None] = lambda _: None,
    data_path: str = DIGITS,
    validation_images: int = 0,
    loaders: int = 0,
    evaluations: int = 5,
    drift_every: int = 0,
    drift_items: int = 16,
    checkpoint_every: int = 0,
    folder: str | None = None,
    stem: str = "training",
    rendezvous: Mapping[str, Any] | None = None,
) -> Measurement:
    """Train a workload's model on real images or text for the case's ``training_steps``, by its recipe.

    Batches depend on the case's seed and the step alone, so that a pair sees the same ones, and a resumed run goes on bit
    for bit where it was (on the CPU).

    Args:
        workload: what to train; its own batches are not used.
        progress: told of each step: ``done``, ``of`` and `SHOWN`.
        alive: told in between that this goes on, with the seconds that it may be silent for now, or 0.
        data_path, validation_images (or windows of a text), loaders: see `revbench.training.supplies.open_supply`.
        evaluations: times that the whole validation set is evaluated, evenly spread, the last after the end.
        drift_every: measure the gradient's drift every so many steps, on copies; never if 0.
        drift_items: of the batch, for that.
        checkpoint_every: steps from one checkpoint to the next; none if 0.
        folder: of the run: the series goes to its folder ``series``, checkpoints to ``checkpoints``, where they stay; without it
            the series is returned alone and nothing is resumed.
        stem: of their files' names.
        rendezvous: of this process among several; see `revbench.training.ranks.joined`.

    Returns:
        Metrics ``train_loss`` and ``train_error`` (means of the last tenth of the steps), ``validation_loss``,
        ``validation_error`` (fractions, at the end), ``step_seconds`` (median), ``peak_bytes`` (largest),
        ``nvml_process_peak_bytes``, ``data_bytes`` (images in the device's memory); of this process, since it began or
        went on: ``training_seconds``, ``waiting_share`` (of the time, spent on getting batches) and
        ``series_share`` (on writing the series); ``train_images``, ``train_images_available``, ``validation_images`` (of a text
        ``…_tokens…``),
        ``data_sha256``, ``weights_sha256``, ``resumed_at_step``, ``resume_note``, and ``drift_problem`` if a measurement
        failed; of several processes also
        ``rank_step_seconds`` and ``rank_peak_bytes``, each ``_min``, ``_median`` and ``_max``, with samples by rank.
        Series: the columns of `revbench.training.series_file.COLUMNS`.

    Raises:
        UserError: data that can't be used, a checkpoint of another case, a folder that can't be written, an optimizer that no
            recipe has, another number of processes than the case says.
    """
    case = workload.case
    recipe = case.schedule.recipe
    if case.optimizer != recipe.optimizer:
        raise UserError(f"optimizer={case.optimizer}: recipe {case.recipe} trains with {recipe.optimizer}")
    with joined(rendezvous, case.device) as ranks:
        if case.world_size != ranks.share.world_size:
            raise UserError(f"world_size={case.world_size}, but {ranks.share.world_size} trains here; use torchrun")
        alive(UNPACKING_SECONDS)
        supply = open_supply(
            workload, data_path, image_size=_image_size(workload), validation_limit=validation_images, loaders=loaders,
            share=ranks.share,
        )  # fmt: skip
        _check_same_images(ranks, supply.facts)
        training = Training(workload, supply, ranks)
        options = {"validation_images": validation_images, "evaluations": evaluations, "drift_every": drift_every}
        record = TrainingRecord(folder, stem, training, options, every=checkpoint_every)
        watch = None
        if drift_every and ranks.first:
            watch = DriftMonitor(
                workload.model, workload.loss, every=drift_every, items=drift_items, autocast=case.autocast,
                **workload.own_way,
            )  # fmt: skip
        with record.series() as series, Meter(case.device) as meter, named_failures():
            loop = _Loop(training, record, series, meter, watch, evaluations)
            shares = loop.run(progress if ranks.first else lambda _: alive(0.0), alive)
            columns = series.columns()
            own = {name: columns[name][record.first - case.training_steps :] for name in ("step_seconds", "peak_bytes")}
            of_ranks = ranks.of_all((statistics.median(own["step_seconds"]), max(own["peak_bytes"])))
            high_water = meter.high_water()
    metrics = {
        **_ends(columns, case.training_steps),
        **high_water,
        **shares,
        **_of_data(supply.facts),
        "weights_sha256": weights_sha256(workload.model),
        "resumed_at_step": record.first,
        "resume_note": record.note(series),
    }
    if watch is not None and (problems := [moment.problem for moment in watch.moments if moment.problem]):
        metrics["drift_problem"] = problems[0]
    names = () if ranks.alone else TRAINING.samples
    samples = {name: [values[i] for values in of_ranks] for i, name in enumerate(names)}
    metrics |= {f"{name}_{how}": f(values) for name, values in samples.items() for how, f in _SUMMARIES.items()}
    return Measurement(metrics, samples, series={} if record.is_on_disk else columns)


_SUMMARIES: Mapping[str, Callable[[Any], Any]] = {"min": min, "median": statistics.median, "max": max}


def _image_size(workload: Workload) -> int:
    size: int | None = getattr(getattr(workload.model, "architecture", None), "image_size", None)
    return size or workload.case.image_size or DEFAULT_IMAGE_SIZE


class _Loop:
    """Steps, evaluations and checkpoints, one after the other. The metrics of a step are read when the next one is under way,
    so that a GPU never waits for them.
    """

    def __init__(
        self,
        training: Training,
        record: TrainingRecord,
        series: SeriesFile,
        meter: Meter,
        watch: DriftMonitor | None,
        evaluations: int,
    ) -> None:
        self._training, self._record, self._series, self._meter, self._watch = training, record, series, meter, watch
        self._steps = training.workload.case.training_steps
        self._evaluate_at = {round((i + 1) * self._steps / evaluations) for i in range(evaluations)}
        self._under_way: deque[Callable[[], Line]] = deque()
        self._waited = self._wrote = 0.0

    def run(self, progress: Progress, alive: Callable[[float], None]) -> dict[str, Value]:
        """Takes all steps from where the record says on.

        Returns:
            ``training_seconds``, ``waiting_share`` and ``series_share``.
        """
        began = time.perf_counter()
        source = self._training.supply.batches(self._record.first, self._steps)
        for done in range(self._record.first + 1, self._steps + 1):
            inputs, targets = self._next_batch(source)
            line = self._step(done, inputs, targets)
            if done in self._evaluate_at:
                line["validation_loss"], line["validation_error"] = self._training.evaluate(lambda: alive(0.0))
            save = self._record.saves_at(done)
            self._write(progress, keep=0 if save or done == self._steps else 1)
            if save:
                self._record.save(done, self._series)
        elapsed = time.perf_counter() - began
        return {
            "training_seconds": elapsed, "waiting_share": self._waited / elapsed, "series_share": self._wrote / elapsed
        }  # fmt: skip

    def _next_batch(self, source: Iterator[Batch]) -> tuple[Any, Tensor]:
        start = time.perf_counter()
        raw, targets = next(source)
        inputs = self._training.normalise(raw)
        self._waited += time.perf_counter() - start
        return inputs, targets

    def _step(self, done: int, inputs: Any, targets: Tensor) -> Line:
        """Takes one step and measures it; what can't be read yet is added to its line later."""
        moment = self._watch(done - 1, inputs, targets) if self._watch is not None else None
        self._meter.begin()
        totals = self._training.step(done - 1, inputs, targets)
        line: Line = {"step": done, "learning_rate": self._training.learning_rate_at(done - 1)}
        self._under_way.append(_reader(line, totals, self._meter.end()))
        if moment is not None and moment.drift is not None:
            whole = moment.drift.whole
            line |= {"angle_degrees": whole.angle_degrees, "smooth_relative_error": whole.smooth_relative_error}
        return line

    def _write(self, progress: Progress, *, keep: int) -> None:
        """Read and write the lines of the steps before the last so many."""
        while len(self._under_way) > keep:
            line = self._under_way.popleft()()
            start = time.perf_counter()
            self._series.add(line)
            self._wrote += time.perf_counter() - start
            shown = {name: finite_or_null(line.get(name)) for name in SHOWN}
            progress({"done": line["step"], "of": self._steps, **shown})


def _ends(columns: Mapping[str, Sequence[Any]], steps: int) -> Line:
    """Returns what the columns of a series come to."""
    last = max(steps // 10, 1)
    seconds, peaks = ([v for v in columns[name] if v is not None] for name in ("step_seconds", "peak_bytes"))
    return {
        "train_loss": mean(columns["loss"][-last:]), "train_error": mean(columns["error"][-last:]),
        "validation_loss": mean(columns["validation_loss"][-1:]), "validation_error": columns["validation_error"][-1],
        "step_seconds": statistics.median(seconds), "peak_bytes": max(peaks),
    }  # fmt: skip


def _of_data(facts: Facts) -> Line:
    items = f"{facts.item}s"
    found: Line = {f"validation_{items}": facts.validation_items, "data_bytes": facts.device_bytes}
    if facts.train_items:  # of what a factory draws there is no end
        found |= {f"train_{items}": facts.train_items, f"train_{items}_available": facts.train_available}
        found["data_sha256"] = facts.sha256
    return found


def _reader(line: Line, totals: Tensor, measured: Callable[[], dict[str, Value]]) -> Callable[[], Line]:
    """Gives the line with all its metrics; it waits for the device to end the step, and not for what it was given after it."""
    values = values_later(totals)

    def read() -> Line:
        loss, wrong, answers = values()
        line.update(loss=loss, error=wrong / answers, **measured())
        return line

    return read


def _check_same_images(ranks: Ranks, facts: Facts) -> None:
    digests = ranks.of_all(facts.identity)
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise UserError(f"process {rank} finds other data than process 0; give every machine the same")


def mean(values: Sequence[Any]) -> float:
    """Returns the mean; NaN if one of them was not finite: a training that diverged has none."""
    return math.nan if None in values else statistics.fmean(values)
