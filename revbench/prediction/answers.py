"""What a network's code asks of the data (``if mask.all()``), answered as a real step of few items was answered.

Fake tensors have no data to answer with. Most such questions do not depend on how many items there are: whether there is a
NaN, whether sequences are packed, whether a mask can be left out. So a real step is made on two items, what is asked is noted,
and the step on fake tensors is given the same answers in the same order. Three items must be answered alike: else the
question is one about the batch, and nobody can answer for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import DataDependentOutputException
from torch.utils._python_dispatch import TorchDispatchMode

from revbench.case import Case
from revbench.observing.operator_calls import EachOperator
from revbench.probes.tracked_step import track_step
from revbench.workload import build_workload

_ASKS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
_ITEMS = (2, 3)  # batch norm takes no single one


Question = tuple[str, str, Any]  # the operator, the dtype of what it is asked of, the answer


def real_answers(case: Case) -> list[Question]:
    """Returns what a case's step asks on a few real items, after the step that makes the optimizer's state.

    Args:
        case: on the CPU.

    Returns:
        Nothing if two and three items are not asked the same, or not answered the same: counts and truths must be equal, other
        numbers are what the data happen to be.
    """
    few, more = (_asked(case.replace(batch_size=items)) for items in _ITEMS)
    return few if list(map(_must_be_alike, few)) == list(map(_must_be_alike, more)) else []


def _must_be_alike(question: Question) -> Question:
    """Returns the question, with the answer if that is a truth or a whole number."""
    operator, dtype, answer = question
    counts = not isinstance(answer, float) or answer.is_integer()
    return operator, dtype, answer if counts else None


def _asked(case: Case) -> list[Question]:
    workload = build_workload(case)
    inputs, targets = workload.batch()
    workload.step(inputs, targets)
    questions: list[Question] = []

    def note(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> None:
        if func in _ASKS:
            questions.append((str(func), str(args[0].dtype), out))

    with EachOperator(note):
        track_step(workload, inputs, targets)
    return questions


class Answering(TorchDispatchMode):
    """Inside, a fake step is given answers that its tensors don't have.

    Args:
        answers: to all that is asked, also to what fake tensors can answer, in order.
    """

    def __init__(self, answers: Sequence[Question]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answers = iter(answers)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in _ASKS:
            return func(*args, **(kwargs or {}))
        question = next(self._answers, None)
        try:
            return func(*args, **(kwargs or {}))
        except DataDependentOutputException:
            if question is None or question[:2] != (str(func), str(args[0].dtype)):  # not what the real step was asked
                raise
            return question[2]
