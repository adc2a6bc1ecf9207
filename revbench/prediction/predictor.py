"""Memory and operations of a training step, without its device and without its memory.

The whole step runs on fake tensors, which have shapes, dtypes and strides but no data, under the same tracker that
measures real steps. PyTorch can't run a backward pass of fake CUDA tensors without a GPU, and switches CUDA's
autocast off there without a word; so the step runs on fake CPU tensors, corrected for what a GPU does otherwise:

- its allocator gives out multiples of 512 bytes, and of large segments not every remainder is split off;
- its optimizers work on all parameters at once (``foreach``), with temporaries as large as all gradients;
- its autocast computes losses and other functions that need range in float32, where the CPU's goes on in the lower dtype;
- its dropout keeps one byte an element;
- it fuses attention, with dropout, too.

On the CPU some kernels keep more than their results show; how much is asked of the real ones (`revbench.prediction.kernels`).

Not corrected: gradients of sparse embeddings, of which only the making is seen; batch statistics, which `reconstructed`
computes again on a GPU instead of keeping them; recurrent layers, which cuDNN fuses. What no count of tensors can tell is left
out: the CUDA context, workspaces of cuDNN and cuBLAS, and fragmentation.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)

from revbench.case import Case
from revbench.errors import UserError
from revbench.prediction.answers import Answering, real_answers
from revbench.prediction.building import build_fake, fake_batch, taken_for_real
from revbench.prediction.gpu import as_on_gpu, block_bytes
from revbench.prediction.kernels import AsKernelsKeep
from revbench.probes.memory import tracked_metrics
from revbench.probes.operations import Operations
from revbench.probes.tracked_step import TrackedStep, track_step
from revbench.workload import Workload, error_line, set_strategy, supported_strategies


@dataclass(frozen=True)
class Prediction:
    """What a training step will need.

    Attributes:
        case: of which this was predicted.
        parameters: how many numbers are trained or could be.
        step: bytes by kind and by phase, rounded as the case's device rounds.
        step_flops: floating-point operations of the step (`revbench.probes.operations`); an add-multiply is two.
        uncounted_operators: those that multiply and have no formula, in words; None if there are none.
    """

    case: Case
    parameters: int
    step: TrackedStep
    step_flops: int
    uncounted_operators: str | None

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics under the names that rows have for them, all but the timeline."""
        metrics = {
            "parameters": self.parameters, **tracked_metrics(self.step), "step_flops": self.step_flops,
            "uncounted_operators": self.uncounted_operators,
        }  # fmt: skip
        return {"case_id": self.case.id, "case": self.case.to_json(), **metrics}


def predict(case: Case) -> Prediction:
    """Predict the memory and the operations of a case's training step.

    No device is needed, whatever the case's device is, and nothing is allocated but the weights of a factory's network, which is
    built for real.

    Args:
        case: what to predict.

    Returns:
        Live tensors of the step: on the CPU those of the measured step; on a GPU what the allocator gives out, without
        workspaces.

    Raises:
        UserError: a case that can't be, a factory that can't be imported or returns no module, an operator that has no
            fake kernel or needs data, and whatever else the network raises.
        NotImplementedError: the case runs compiled code, whose tensors nobody sees, or certifies.
    """
    return Predictor().predict(case)


class Predictor:
    """Predicts several cases; as long as they are of one network, it is built once."""

    def __init__(self) -> None:
        self._network: tuple[Case, FakeTensorMode, Workload] | None = None

    def predict(self, case: Case) -> Prediction:
        """See `revbench.prediction.predict`."""
        case.check()
        if case.compile or case.strategy == "torch_budget":
            raise NotImplementedError("compiled code makes tensors that can't be predicted; omit compile")
        if case.strategy == "torch_offload":
            raise NotImplementedError(
                "offloading moves tensors between memories, which one prediction can't tell apart"
            )
        if case.certify:
            raise NotImplementedError("a certificate compares bits, of which a prediction has none; omit certify")
        cuda = case.on_gpu
        with _named_faults(case):
            mode, workload = self._built(case)
            try:
                operations, step = _tracked(workload, mode, cuda=cuda)
            except DataDependentOutputException:
                operations, step = _tracked(workload, mode, cuda=cuda, answers=real_answers(workload.case))
            _check_dtypes(operations, case)
            parameters = sum(p.numel() for p in workload.model.parameters())
            return Prediction(case, parameters, step, operations.flops, operations.uncounted_words())

    def strategies(self, case: Case) -> tuple[str, ...]:
        """Returns those of our own strategies that the network of a case supports.

        Raises:
            UserError: as `predict`.
        """
        with _named_faults(case):
            _, workload = self._built(case.stored())
        return supported_strategies(workload)

    def _built(self, case: Case) -> tuple[FakeTensorMode, Workload]:
        """Returns a network, with its optimizer's state, that runs as this case asks."""
        here = case.replace(device="cpu")
        network = case.stored().replace(batch_size=1)
        if self._network is None or self._network[0] != network:
            mode = FakeTensorMode(allow_fallback_kernels=False, allow_non_fake_inputs=True)
            workload = build_fake(here, mode)
            with mode:
                if case.on_gpu:
                    for group in workload.optimizer.param_groups:
                        group["foreach"] = True
                _make_optimizer_state(workload)
            self._network = network, mode, workload
        _, mode, workload = self._network
        set_strategy(workload.model, here, workload.own_setter)
        return mode, dataclasses.replace(workload, case=here)


def _tracked(
    workload: Workload, mode: FakeTensorMode, *, cuda: bool, answers: Sequence[Any] = ()
) -> tuple[Operations, TrackedStep]:
    inputs, targets = fake_batch(workload, mode)

    def track() -> tuple[Operations, TrackedStep]:
        operations = Operations()
        on_host = _counters(workload.optimizer) if cuda else ()
        with mode, taken_for_real(), as_on_gpu() if cuda else AsKernelsKeep(), Answering(answers):
            step = track_step(
                workload, inputs, targets, rounded=block_bytes if cuda else int, observe=operations.note,
                on_host=on_host,
            )  # fmt: skip
        return operations, step

    found = track()
    return track() if _forget_idle(workload) else found


def _forget_idle(workload: Workload) -> bool:
    """Drop after a step the optimizer's state of parameters that got no gradient, which a real one never makes.

    Returns:
        Whether there was any.
    """
    idle = [p for p in workload.model.parameters() if p.grad is None and p in workload.optimizer.state]
    for parameter in idle:
        del workload.optimizer.state[parameter]
    return bool(idle)


def _counters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns the optimizer's counts of steps, which stay on the CPU."""
    found = (state.get("step") for state in optimizer.state.values())
    return [step for step in found if isinstance(step, Tensor)]


def _make_optimizer_state(workload: Workload) -> None:
    for parameter in workload.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    workload.optimizer.step()


def _check_dtypes(operations: Operations, case: Case) -> None:
    """Raise unless the products were computed in the dtype that the case asks for."""
    asked = {getattr(torch, case.autocast if case.autocast != "none" else case.dtype)}
    if operations.dtypes and not operations.dtypes & asked:
        raise RuntimeError(f"{case.id}: predicted in {operations.dtypes}, asked for {asked}: autocast had no effect")


@contextmanager
def _named_faults(case: Case) -> Iterator[None]:
    """Turn whatever goes wrong in somebody's network into one line that names it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")  # it prints the traceback of what it raises
    was_disabled, log.disabled = log.disabled, True
    try:
        yield
    except (UserError, NotImplementedError):
        raise
    except UnsupportedOperatorException as error:
        problem = f"operator {error.func} has no fake kernel; register one with torch.library.register_fake"
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        problem = f"operator {error.func} needs the data of a tensor, of which there is none in a prediction"
    except SystemExit as error:
        problem = f"its factory ends the process ({error})"
    except Exception as error:
        problem = error_line(error)
    else:
        return
    finally:
        log.disabled = was_disabled
    raise UserError(f"model {case.model!r} with batch {case.batch_size} can't be predicted: {problem}") from None
