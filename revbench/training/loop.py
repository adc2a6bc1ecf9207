"""The training loop: short, deterministic, resumable, with a line of figures for every step."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from revbench.numerics.monitor import DriftMonitor
from revbench.probes.found import Found, Metric, Progress
from revbench.recipes import PAPER
from revbench.training.checkpoint import Checkpoints, weights_sha256
from revbench.training.data import TRAIN_LIMIT, Images, load_images
from revbench.training.order import Batches
from revbench.training.sources import DIGITS
from revbench.training.stream import SeriesFile
from revbench.workload import Workload

Line = dict[str, Metric]


class Training:
    """One network and the images that it is trained on.

    Args:
        workload: what to train; its own batches are not used.
        images: put into the device's memory, and augmented there.
    """

    def __init__(self, workload: Workload, images: Images) -> None:
        case = workload.case
        self.workload = workload
        self.images = images.to(case.device)
        self._batches = Batches(
            self.images.train_images, self.images.train_labels, batch_size=case.batch_size, seed=case.seed,
            padding=PAPER.padding, flip=images.flip,
        )  # fmt: skip
        pixels = images.train_images.double() / 255
        self._mean = pixels.mean((0, 2, 3)).view(1, 3, 1, 1).to(case.device)
        self._deviation = pixels.std((0, 2, 3)).clamp_min(1e-3).view(1, 3, 1, 1).to(case.device)
        self._scaler = torch.amp.GradScaler(case.device.partition(":")[0], enabled=case.autocast == "float16")

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The normalised images and labels of a step (from 0)."""
        raw, labels = self._batches.at(step)
        return self.normalise(raw), labels

    def normalise(self, raw: Tensor) -> Any:
        """uint8 images into the workload's dtype, each channel to mean 0 and variance 1 over the training set."""
        return self.workload.place((raw.double() / 255 - self._mean) / self._deviation)

    def step(self, step: int, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """One training step; returns its loss and its error (fraction wrong).

        The batch is gone through in ``accumulate`` equal parts, whose gradients add up to that of their mean; batch norm sees
        each part by itself.
        """
        case, optimizer = self.workload.case, self.workload.optimizer
        for group in optimizer.param_groups:
            group["lr"] = PAPER.learning_rate_at(step, case.training_steps)
        optimizer.zero_grad(set_to_none=True)
        loss, wrong = torch.zeros((), dtype=torch.float64, device=inputs.device), 0
        for part, labels in zip(inputs.chunk(case.accumulate), targets.chunk(case.accumulate), strict=True):
            with self.workload.autocast():
                outputs = self.workload.model(part)
                share = self.workload.loss(outputs, labels) * (len(labels) / len(targets))
            self._scaler.scale(share).backward()
            loss += share.detach()
            wrong = wrong + (outputs.detach().argmax(1) != labels).sum()
        if case.clip_norm:
            self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.workload.model.parameters(), case.clip_norm)
        self._scaler.step(optimizer)
        self._scaler.update()
        return loss.item(), int(wrong) / len(targets)  # waits for the device

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss and error (fraction wrong) on the validation images, in ``eval()``; the mode is put back after."""
        model: nn.Module = self.workload.model
        model.eval()
        loss, wrong = 0.0, 0
        count = len(self.images.validation_labels)
        for start in range(0, count, 200):
            inputs = self.normalise(self.images.validation_images[start : start + 200])
            targets = self.images.validation_labels[start : start + 200]
            with self.workload.autocast():
                outputs = model(inputs)
                loss += self.workload.loss(outputs, targets).item() * len(targets)
            wrong += int((outputs.argmax(1) != targets).sum())
        model.train()
        return loss / count, wrong / count


def measure_training(
    workload: Workload,
    *,
    progress: Progress,
    data_path: str = DIGITS,
    train_limit: int = TRAIN_LIMIT,
    evaluations: int = 5,
    drift_every: int = 0,
    drift_items: int = 16,
    checkpoint_every: int = 0,
    folder: str | None = None,
    stem: str = "training",
) -> Found:
    """Train a workload's model on real images for the case's ``training_steps``, by the paper's recipe.

    Batches depend on the case's seed and the step alone, so that a pair sees the same ones, and a resumed run goes on bit
    for bit where it was (on the CPU).

    Args:
        workload: what to train; its own batches are not used.
        progress: told of each step: ``done``, ``of``, ``loss``, ``error``, ``step_seconds``, ``peak_bytes``.
        data_path, train_limit: see `revbench.training.data.load_images`.
        evaluations: times that the whole validation set is evaluated, evenly spread, the last after the end.
        drift_every: measure the gradient's drift every so many steps, on copies; never if 0.
        drift_items: of the batch, for that.
        checkpoint_every: steps from one checkpoint to the next; none if 0.
        folder: of the run: the series goes to its folder ``series``, checkpoints to ``checkpoints``; without it the series is
            returned alone and nothing is resumed.
        stem: of their files' names.

    Returns:
        Metrics ``train_loss`` and ``train_error`` (means of the last tenth of the steps), ``validation_loss``,
        ``validation_error`` (fractions, at the end), ``step_seconds`` (median), ``training_seconds``,
        ``waiting_share`` (of the time, spent on getting batches), ``series_share`` (on writing the series),
        ``train_images``, ``train_images_available``, ``validation_images``, ``weights_sha256``, ``resumed_at_step`` and
        ``resume_note``. Series: the columns of `revbench.training.stream.COLUMNS`.

    Raises:
        UserError: data that can't be used, a checkpoint of another case, a folder that can't be written.
    """
    case = workload.case
    size = getattr(getattr(workload.model, "architecture", None), "image_size", None) or case.image_size or 32
    training = Training(workload, load_images(data_path, image_size=size, train_limit=train_limit))
    steps = case.training_steps
    evaluate_at = {round((i + 1) * steps / evaluations) for i in range(evaluations)}
    checkpoints = Checkpoints(Path(folder) / "checkpoints", stem) if folder is not None and checkpoint_every else None
    first, note = checkpoints.restore(workload) if checkpoints is not None else (0, None)
    watch = None
    if drift_every:
        watch = DriftMonitor(
            workload.model, workload.loss, every=drift_every, items=drift_items, autocast=case.autocast
        )
    path = Path(folder) / "series" / f"{stem}.jsonl" if folder is not None else None
    began, waited, wrote = time.perf_counter(), 0.0, 0.0
    with SeriesFile(path, keep=first) as series:
        for step in range(first, steps):
            start = time.perf_counter()
            inputs, targets = training.batch(step)
            ready = time.perf_counter()
            moment = watch(step, inputs, targets) if watch is not None else None
            line: Line = {"step": step + 1, "learning_rate": PAPER.learning_rate_at(step, steps)}
            with _measured(case.device, line):
                line["loss"], line["error"] = training.step(step, inputs, targets)
            if step + 1 in evaluate_at:
                line["validation_loss"], line["validation_error"] = training.evaluate()
            if moment is not None and moment.drift is not None:
                whole = moment.drift.whole
                line |= {"angle_degrees": whole.angle_degrees, "smooth_relative_error": whole.smooth_relative_error}
            now = time.perf_counter()
            series.add(line)
            wrote += time.perf_counter() - now
            waited += ready - start
            shown = ("loss", "error", "step_seconds", "peak_bytes", "angle_degrees")
            progress({"done": step + 1, "of": steps, **{name: line.get(name) for name in shown}})
            if checkpoints is not None and (step + 1) % checkpoint_every == 0 and step + 1 < steps:
                series.flush()
                checkpoints.save(workload, step + 1)
        columns = series.columns()
    elapsed = time.perf_counter() - began
    if checkpoints is not None:
        checkpoints.remove()
    last = max(steps // 10, 1)
    metrics: dict[str, Metric] = {
        "train_loss": _mean(columns["loss"][-last:]),
        "train_error": _mean(columns["error"][-last:]),
        "validation_loss": columns["validation_loss"][-1],
        "validation_error": columns["validation_error"][-1],
        "step_seconds": statistics.median(float(v) for v in columns["step_seconds"] if v is not None),
        "training_seconds": elapsed,
        "waiting_share": waited / elapsed,
        "series_share": wrote / elapsed,
        "train_images": len(training.images.train_labels),
        "train_images_available": training.images.train_available,
        "validation_images": len(training.images.validation_labels),
        "weights_sha256": weights_sha256(workload.model),
        "resumed_at_step": first,
        "resume_note": note,
    }
    return Found(metrics, series=columns if path is None else {})


@contextmanager
def _measured(device: str, line: Line) -> Iterator[None]:
    """Time and memory of what is inside: the device's clock and the allocator's peak on a GPU, else the host's clock and the
    resident set.
    """
    if device.startswith("cuda"):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.reset_peak_memory_stats()
        begin.record()
        yield
        end.record()
        end.synchronize()
        line["step_seconds"], line["peak_bytes"] = begin.elapsed_time(end) / 1e3, torch.cuda.max_memory_allocated()
        return
    start = time.perf_counter()
    yield
    line["step_seconds"], line["peak_bytes"] = time.perf_counter() - start, psutil.Process().memory_info().rss


def _mean(values: list[Any]) -> float:
    finite = [v for v in values if v is not None]
    return float(sum(finite) / len(finite)) if finite else math.nan
