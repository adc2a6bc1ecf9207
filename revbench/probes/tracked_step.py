"""One training step under the tracker of live tensors: what the memory probe measures and a prediction imitates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from revbench.observing.nested import tensors_in
from revbench.observing.operator_calls import Tell
from revbench.probes.declared import PHASES
from revbench.probes.live_tensors import LiveTensors
from revbench.probes.module_tracker import ModuleTracker
from revbench.workload import Workload


@dataclass(frozen=True)
class TrackedStep:
    """What was alive in a step, in bytes.

    Attributes:
        parameter_bytes: parameters and buffers.
        optimizer_state_bytes: what the optimizer keeps from step to step.
        batch_bytes: inputs and targets.
        gradient_bytes: of the parameters, after backward.
        kept_bytes: what forward leaves for backward: alive after the loss, above the steady state.
        phase_peak_bytes: the most alive in each phase.
        phase_peak_places: the module that ran, or was back-propagated, at that moment; ``loss``; ``optimizer``.
        timeline: columns of `LiveTensors.timeline`.
    """

    parameter_bytes: int
    optimizer_state_bytes: int
    batch_bytes: int
    gradient_bytes: int
    kept_bytes: int
    phase_peak_bytes: dict[str, int]
    phase_peak_places: dict[str, str]
    timeline: dict[str, list[Any]] = field(compare=False)

    @property
    def steady_bytes(self) -> int:
        """Alive throughout: parameters, buffers, optimizer state and the batch."""
        return self.parameter_bytes + self.optimizer_state_bytes + self.batch_bytes

    @property
    def peak_bytes(self) -> int:
        """The most alive at once in the whole step."""
        return max(self.phase_peak_bytes.values())

    @property
    def activation_peak_bytes(self) -> int:
        """The peak above the steady state."""
        return self.peak_bytes - self.steady_bytes

    @property
    def activation_peak_without_gradients_bytes(self) -> int:
        """The peak above the steady state, had the parameters' gradients been made elsewhere."""
        columns = zip(self.timeline["live_bytes"], self.timeline["gradient_bytes"], strict=True)
        most: int = max(live - gradients for live, gradients in columns)
        return most - self.steady_bytes


def track_step(
    workload: Workload,
    inputs: Any,
    targets: Any,
    *,
    rounded: Callable[[int], int] = int,
    observe: Tell | None = None,
    on_host: Iterable[Tensor] = (),
) -> TrackedStep:
    """Run one step, gradients made anew, under the tracker.

    The optimizer's state must be there already: a step before this one makes it.

    Args:
        workload: what to run.
        inputs, targets: the batch.
        rounded, observe: see `LiveTensors`.
        on_host: tensors of a fake step that a real one would have in the host's memory, which is not counted.
    """
    places = ModuleTracker(workload.model)
    device = "cuda" if workload.case.on_gpu else None
    live = LiveTensors(rounded=rounded, device=device, place=places.now, observe=observe)
    live.ignore(on_host)
    workload.optimizer.zero_grad(set_to_none=True)
    live.track(workload.model)
    parameter_bytes = live.live_bytes
    live.track(workload.optimizer.state)
    optimizer_state_bytes = live.live_bytes - parameter_bytes
    live.track(tensors_in((inputs, targets)))
    steady = live.live_bytes
    with places.watching(), live:
        with live.phase("forward"):
            loss = workload.forward(inputs, targets)
        kept = live.live_bytes - steady
        # On this thread also on a GPU, so that `places` knows the numbers of the nodes.
        with live.phase("backward"), torch.autograd.set_multithreading_enabled(False):
            loss.backward()
        del loss
        gradients = [p.grad for p in workload.model.parameters() if p.grad is not None]
        gradient_bytes = live.call_gradients(gradients)
        del gradients
        with live.phase("optimizer"):
            workload.optimizer.step()
    return TrackedStep(
        parameter_bytes=parameter_bytes,
        optimizer_state_bytes=optimizer_state_bytes,
        batch_bytes=steady - parameter_bytes - optimizer_state_bytes,
        gradient_bytes=gradient_bytes,
        kept_bytes=kept,
        phase_peak_bytes={phase: live.phase_peak_bytes[phase] for phase in PHASES},
        phase_peak_places={p: "optimizer" if p == "optimizer" else live.phase_peak_places[p] for p in PHASES},
        timeline=live.timeline(),
    )
