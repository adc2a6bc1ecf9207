"""What a network's code asks of the data (``if mask.all()``), answered as a real step of few items was answered.

Fake tensors have no data to answer with. Most such questions do not depend on how many items there are: whether there is a
NaN, whether sequences are packed, whether a mask can be left out. So a real step is made on two items, what is asked is noted,
and the step on fake tensors is given the same answers in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode

from revbench.case import Case
from revbench.probes.tracked_step import track_step
from revbench.workload import build_workload

_ASKS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
_ITEMS = 2  # batch norm takes no single one


def real_answers(case: Case) -> list[Any]:
    """What a case's step asks on a few real items, after the step that makes the optimizer's state.

    Args:
        case: on the CPU.
    """
    workload = build_workload(case.replace(batch_size=min(case.batch_size, _ITEMS)))
    inputs, targets = workload.batch()
    workload.step(inputs, targets)
    noting = _Noting()
    with noting:
        track_step(workload, inputs, targets)
    return noting.answers


class _Noting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answers: list[Any] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in _ASKS:
            self.answers.append(out)
        return out


class Answering(TorchDispatchMode):
    """Inside, a fake step is given answers that its tensors don't have.

    Args:
        answers: to all that is asked, also to what fake tensors can answer, in order.
    """

    def __init__(self, answers: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answers = iter(answers)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _ASKS:
            return func(*args, **(kwargs or {}))
        nothing = object()
        answer = next(self._answers, nothing)
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if answer is nothing:  # something was asked that was not asked of the real step
                raise
            return answer
