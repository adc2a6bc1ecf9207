"""One step of a training, and one evaluation: the maths of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from revbench.observing.calling import call
from revbench.observing.nested import map_tensors, tensors_in
from revbench.training.batches import Supply
from revbench.training.ranks import Ranks
from revbench.workload import Workload


class Training:
    """One network and the images or the text that it is trained on, alone or together with other processes.

    Args:
        workload: what to train; its own batches are not used.
        supply: this process's share of the data.
        ranks: the processes that train together.
    """

    def __init__(self, workload: Workload, supply: Supply, ranks: Ranks) -> None:
        case = workload.case
        self.workload, self.supply, self.ranks = workload, supply, ranks
        self.scaler = torch.amp.GradScaler(case.device_type, enabled=case.autocast == "float16")
        self._model = ranks.wrap(workload.model, case.device)
        dtype = torch.float64 if case.dtype == "float64" else torch.float32
        self._mean, self._deviation = (
            torch.tensor(values, dtype=dtype, device=case.device).view(1, -1, 1, 1)
            for values in (supply.facts.mean, supply.facts.deviation)
        )

    def normalise(self, raw: Any) -> Any:
        """uint8 images into the workload's dtype, each channel to mean 0 and variance 1 over the training set; tokens, and what a
        factory draws, as they are."""
        if self.supply.facts.item != "image":
            return raw
        return self.workload.place((raw.to(self._mean.dtype) / 255 - self._mean) / self._deviation)

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        return self.workload.case.schedule.learning_rate_at(step)

    def step(self, step: int, inputs: Any, targets: Any) -> Tensor:
        """Takes one training step.

        This process's part of the batch is gone through in ``accumulate`` parts, whose gradients add up to that of their mean;
        batch norm sees each part by itself.

        Returns:
            float64 ``(3,)`` on the device, not waited for: loss, number of wrong answers and of answers of the whole batch.
        """
        case, optimizer = self.workload.case, self.workload.optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step)
        optimizer.zero_grad(set_to_none=True)
        found = torch.zeros(3, dtype=torch.float64, device=case.device)
        parts = [
            (_part(inputs, i, case.accumulate), _part(targets, i, case.accumulate)) for i in range(case.accumulate)
        ]
        whole = _count(inputs)
        for i, (part, labels) in enumerate(parts):
            with self.ranks.local(self._model, last=i == len(parts) - 1):
                with self.workload.autocast():
                    outputs = call(self._model, part)
                    loss = self.workload.loss(outputs, labels) * (_count(part) / whole)
                self.scaler.scale(loss).backward()
            found += torch.stack([loss.detach().double(), *_answers(outputs, labels)])
        if case.clip_norm:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.workload.model.parameters(), case.clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        found[0] /= self.ranks.share.world_size
        return self.ranks.sum(found)

    @torch.no_grad()
    def evaluate(self, alive: Callable[[], None] = lambda: None) -> tuple[float, float]:
        """Returns the mean loss and the error (fraction wrong) on what is held out, in ``eval()``; the mode is put back after.

        Args:
            alive: called at each batch.
        """
        model: nn.Module = self.workload.model
        self.ranks.copy_buffers(model)
        model.eval()
        found = torch.zeros(4, dtype=torch.float64, device=self._mean.device)
        for raw, targets in self.supply.validation():
            alive()
            with self.workload.autocast():
                outputs = call(model, self.normalise(raw))
                loss = self.workload.loss(outputs, targets).double()
            wrong, answers = _answers(outputs, targets)
            count = torch.full_like(loss, _count(targets if targets is not None else raw))
            found += torch.stack([loss * count, wrong, answers, count])
        model.train()
        loss_sum, wrong_count, answers_count, item_count = self.ranks.sum(found).tolist()
        return loss_sum / item_count, wrong_count / answers_count


def _part(value: Any, number: int, parts: int) -> Any:
    """Returns one of so many parts of a batch, along the first dimension of each of its tensors."""
    return value if parts == 1 else map_tensors(lambda x: x.tensor_split(parts)[number] if x.dim() else x, value)


def _count(value: Any) -> int:
    """Returns how many items a batch has: along the first dimension of its first tensor that has one; 1 if there is none."""
    return next((len(x) for x in tensors_in(value) if x.dim()), 1)


@torch.no_grad()
def _answers(outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Returns how many answers are wrong, and how many there are; NaN where the targets are no classes.

    Classes are the last dimension of the outputs ``(..., C)`` of targets ``(...)``, or the second of those ``(B, C, ...)`` of
    targets ``(B, ...)``.
    """
    device = next(tensors_in((outputs, targets))).device
    wrong = answers = torch.full((), torch.nan, dtype=torch.float64, device=device)
    if isinstance(outputs, Tensor) and isinstance(targets, Tensor) and not targets.is_floating_point():
        for classes in (-1, 1):
            if outputs.dim() == targets.dim() + 1 and outputs.movedim(classes, -1).shape[:-1] == targets.shape:
                counted = targets >= 0  # what is to be ignored has a negative class
                return ((outputs.argmax(classes) != targets) & counted).sum().double(), counted.sum().double()
    return wrong, answers
