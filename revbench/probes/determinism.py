"""Whether two identical training steps give identical bits on this hardware, and where they part."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from revbench.backprop.certificate import checksum
from revbench.observing.module_calls import around_module_calls
from revbench.observing.nested import dense
from revbench.probes.measurement import Measurement, Progress, Value
from revbench.workload import Workload, build_workload

_RATE = 1e-3  # so that the optimizer's part of a step shows


def measure_determinism(workload: Workload, *, progress: Progress, runs: int = 3) -> Measurement:
    """Run one step again and again from the same weights, batch and random numbers, and compare bit for bit.

    Args:
        workload: the case.
        progress: not called.
        runs: how often; the others are compared with the first.

    Returns:
        Metrics ``runs``; ``identical`` (1 or 0: every parameter after the step, every gradient and the loss);
        ``first_difference``: the first place where bits differ, in the order of computation (the output of a module
        in forward, else the gradient of a parameter on the way back, else a parameter after the optimizer), None if
        nothing does; ``differing_gradients``, how many of ``gradients`` differ in any run.
    """
    case = workload.case if workload.case.learning_rate else workload.case.replace(learning_rate=_RATE)
    first: list[tuple[str, Tensor]] = []
    difference: str | None = None
    differing: set[str] = set()
    count = 0
    for run in range(runs):
        built = build_workload(case)
        found = _step(built)
        count = sum(name.startswith("gradient of ") for name, _ in found)
        if run == 0:
            first = found
            continue
        parted = [
            name
            for (name, bits), (other, others) in zip(first, found, strict=False)  # a step may even call other modules
            if name != other or not torch.equal(bits, others)
        ]
        if len(first) != len(found):
            parted.append("number of modules that are called")
        difference = difference or next(iter(parted), None)
        differing |= {name for name in parted if name.startswith("gradient of ")}
    metrics: dict[str, Value] = {
        "runs": runs, "identical": int(difference is None), "first_difference": difference,
        "differing_gradients": len(differing), "gradients": count,
    }  # fmt: skip
    return Measurement(metrics)


def _step(workload: Workload) -> list[tuple[str, Tensor]]:
    """Checksums of what one step computes, in its order."""
    inputs, targets = workload.batch()
    found: list[tuple[str, Tensor]] = []
    torch.manual_seed(workload.case.seed)
    names = {module: name or "the network" for name, module in workload.model.named_modules()}

    def note(module: nn.Module, outputs: object) -> None:
        for value in outputs if isinstance(outputs, tuple) else (outputs,):
            if isinstance(value, Tensor) and value.is_floating_point():
                found.append((f"output of {names.get(module, type(module).__name__)}", checksum(value)))

    with around_module_calls(after=note):
        loss = workload.forward(inputs, targets)
    found.append(("loss", checksum(loss)))
    loss.backward()
    parameters = dict(workload.model.named_parameters())
    for name, parameter in reversed(parameters.items()):
        if parameter.grad is not None:
            found.append((f"gradient of {name}", checksum(dense(parameter.grad))))
    workload.optimizer.step()
    found += [(f"{name} after the step", checksum(parameter)) for name, parameter in parameters.items()]
    return found
