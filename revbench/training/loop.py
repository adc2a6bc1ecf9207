"""The training loop: short, deterministic, with a row of figures for every step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.probes.found import Found, Metric, Progress
from revbench.training.data import Images, load_images
from revbench.training.sources import DIGITS
from revbench.workload import LEARNING_RATE, Workload

PADDING = 4  # pixels; Gomez et al. 2017, section 4, as He et al. 2016


def learning_rate(step: int, steps: int) -> float:
    """The paper's schedule, scaled: 0.1, divided by 10 at half and again at three quarters of the steps.

    The paper has 80,000 steps on CIFAR with changes at 40,000 and 60,000.
    """
    return LEARNING_RATE * (0.1 if 2 * step >= steps else 1.0) * (0.1 if 4 * step >= 3 * steps else 1.0)


def batches(images: Images, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches, the same for every model and device: shuffled, cropped and, if allowed, mirrored.

    Yields:
        uint8 images ``(batch_size, 3, S, S)`` and int64 labels, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    size = images.train_images.shape[-1]
    while True:
        while len(order) < batch_size:
            order = torch.cat((order, torch.randperm(len(images.train_labels), generator=generator)))
        chosen, order = order[:batch_size], order[batch_size:]
        padded = F.pad(images.train_images[chosen], (PADDING,) * 4)
        corners = torch.randint(2 * PADDING + 1, (batch_size, 2), generator=generator).tolist()
        batch = torch.stack([x[:, i : i + size, j : j + size] for x, (i, j) in zip(padded, corners, strict=True)])
        if images.flip:
            mirrored = torch.rand(batch_size, generator=generator) < 0.5
            batch[mirrored] = batch[mirrored].flip(-1)
        yield batch, images.train_labels[chosen]


def measure_training(
    workload: Workload,
    *,
    progress: Progress,
    data_path: str = DIGITS,
    evaluations: int = 5,
) -> Found:
    """Train a workload's model on real images for the case's ``training_steps``.

    SGD with momentum 0.9, weight decay on weights only, `learning_rate`'s schedule, pad-4 crop and flip
    (Gomez et al. 2017, section 4). Batches depend on the case's seed alone, so that a pair sees the same ones.

    Args:
        workload: what to train; its own batches are not used.
        progress: told of each step: ``done``, ``of``, ``loss``, ``error``, ``step_seconds``.
        data_path: see `revbench.training.data.load_images`.
        evaluations: times that the whole validation set is evaluated, evenly spread, the last after the end.

    Returns:
        Metrics ``train_loss`` and ``train_error`` (means of the last tenth of the steps), ``validation_loss``,
        ``validation_error`` (fractions, at the end), ``step_seconds`` (median), ``training_seconds``,
        ``train_images``, ``train_images_available``, ``validation_images``. Series ``step``, ``loss``, ``error``,
        ``learning_rate``, ``step_seconds``, ``validation_loss``, ``validation_error`` (None between evaluations).
    """
    case = workload.case
    size = getattr(getattr(workload.model, "architecture", None), "image_size", None) or case.image_size or 32
    images = load_images(data_path, image_size=size)
    normalise = _Normalise(images, workload)
    steps = case.training_steps
    evaluate_at = {round((i + 1) * steps / evaluations) for i in range(evaluations)}
    series: dict[str, list[Metric]] = {
        name: []
        for name in ("step", "loss", "error", "learning_rate", "step_seconds", "validation_loss", "validation_error")
    }
    stream = batches(images, case.batch_size, case.seed)
    began = time.perf_counter()
    for step in range(1, steps + 1):
        rate = learning_rate(step - 1, steps)
        for group in workload.optimizer.param_groups:
            group["lr"] = rate
        raw, labels = next(stream)
        inputs, targets = normalise(raw), workload.place(labels)
        start = time.perf_counter()
        workload.optimizer.zero_grad(set_to_none=True)
        outputs = workload.model(inputs)
        loss = workload.loss(outputs, targets)
        loss.backward()
        workload.optimizer.step()
        loss_value = loss.item()  # waits for the device, so that the time is the step's
        seconds = time.perf_counter() - start
        error = (outputs.detach().argmax(1) != targets).double().mean().item()
        validation = evaluate(workload, images, normalise) if step in evaluate_at else (None, None)
        figures = (step, loss_value, error, rate, seconds, *validation)
        for column, figure in zip(series.values(), figures, strict=True):
            column.append(figure)
        progress({"done": step, "of": steps, "loss": loss_value, "error": error, "step_seconds": seconds})
    last = max(steps // 10, 1)
    metrics: dict[str, Metric] = {
        "train_loss": _mean(series["loss"][-last:]),
        "train_error": _mean(series["error"][-last:]),
        "validation_loss": series["validation_loss"][-1],
        "validation_error": series["validation_error"][-1],
        "step_seconds": torch.tensor(series["step_seconds"], dtype=torch.float64).median().item(),
        "training_seconds": time.perf_counter() - began,
        "train_images": len(images.train_labels),
        "train_images_available": images.train_available,
        "validation_images": len(images.validation_labels),
    }
    return Found(metrics, series=series)


@torch.no_grad()
def evaluate(workload: Workload, images: Images, normalise: _Normalise) -> tuple[float, float]:
    """Mean loss and error (fraction wrong) on the validation images, in ``eval()``; the mode is put back after."""
    model: nn.Module = workload.model
    model.eval()
    loss, wrong = 0.0, 0
    count = len(images.validation_labels)
    for start in range(0, count, 200):
        inputs = normalise(images.validation_images[start : start + 200])
        targets = workload.place(images.validation_labels[start : start + 200])
        outputs = model(inputs)
        loss += workload.loss(outputs, targets).item() * len(targets)
        wrong += int((outputs.argmax(1) != targets).sum())
    model.train()
    return loss / count, wrong / count


class _Normalise:
    """uint8 images to the workload's device and dtype, each channel to mean 0 and variance 1 over the training set."""

    def __init__(self, images: Images, workload: Workload) -> None:
        pixels = images.train_images.double() / 255
        self._mean = pixels.mean((0, 2, 3)).view(1, 3, 1, 1)
        self._deviation = pixels.std((0, 2, 3)).clamp_min(1e-3).view(1, 3, 1, 1)
        self._workload = workload

    def __call__(self, batch: Tensor) -> Any:
        return self._workload.place((batch.double() / 255 - self._mean) / self._deviation)


def _mean(values: list[Any]) -> float:
    return float(sum(values) / len(values))
