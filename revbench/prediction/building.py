"""A workload on fake tensors, which have shapes, dtypes and strides but no data.

Networks of the catalogue are built of fake tensors from the start, however large. A factory is somebody's own and may look
at data while it builds (a truncated normal distribution that draws again what lies outside, a list of rates out of a tensor,
a copy of a module), which fake tensors either refuse or, in `copy.deepcopy`, get wrong; so it is called as it is, and
what it made is exchanged for fake tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from revbench.case import Case
from revbench.errors import UserError
from revbench.observing.nested import map_tensors
from revbench.workload import Workload, build_workload, make_optimizer


def build_fake(case: Case, mode: FakeTensorMode) -> Workload:
    """Build what a case names, of fake tensors.

    Args:
        case: on the CPU.
        mode: of the tensors.

    Raises:
        UserError: as `build_workload`.
    """
    if case.factory is None:
        with mode:
            return build_workload(case)
    workload = build_workload(case)
    exchange(workload.model, mode)
    with mode:
        return dataclasses.replace(workload, optimizer=make_optimizer(case, workload.model))


def exchange(model: nn.Module, mode: FakeTensorMode) -> None:
    """Exchange what tensors a network's modules hold (parameters, buffers, attributes; also in lists, tuples and dicts).

    A tensor that stands in several places is one tensor afterwards.
    """
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def fake(real: Tensor) -> Tensor:
        if id(real) not in made:
            made[id(real)] = real, real if isinstance(real, FakeTensor) else mode.from_tensor(real)
        return made[id(real)][1]

    for module in model.modules():
        for slot in (module._parameters, module._buffers):
            for name, value in slot.items():
                if value is not None:
                    slot[name] = fake(value)  # type: ignore[assignment]
        for name, held in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                module.__dict__[name] = _exchanged(held, fake)


def _exchanged(value: Any, fake: Callable[[Tensor], Tensor]) -> Any:
    """Returns the value with fake tensors in it; itself if there are none to be."""
    if isinstance(value, Tensor):
        return fake(value)
    if type(value) is list:
        value[:] = [_exchanged(item, fake) for item in value]
    elif type(value) is dict:
        value.update({key: _exchanged(item, fake) for key, item in value.items()})
    elif type(value) is tuple:
        found = tuple(_exchanged(item, fake) for item in value)
        return found if any(a is not b for a, b in zip(found, value, strict=True)) else value
    return value


def fake_batch(workload: Workload, mode: FakeTensorMode) -> tuple[Any, Any]:
    """Returns a batch of a workload, drawn without its memory if its maker can do that."""
    try:
        with mode:
            return workload.batch()
    except UserError:
        raise
    except Exception:  # it looks at data; if there is another reason, it tells it again
        return map_tensors(mode.from_tensor, workload.batch())  # type: ignore[no-any-return]


class _WhatIsAsked(type):
    hidden = False

    def __instancecheck__(cls, instance: object) -> bool:
        return not _WhatIsAsked.hidden and isinstance(instance, FakeTensor)


class _Nothing(metaclass=_WhatIsAsked):
    """Stands where libraries ask whether a tensor is fake."""


@contextmanager
def taken_for_real() -> Iterator[None]:
    """Inside, a library that asks `torch._subclasses.FakeTensor` finds no fake tensors.

    Some take them for a sign of a trace, and make masks that they do not make otherwise.
    """
    package: Any = torch._subclasses
    before = package.FakeTensor
    package.FakeTensor = _Nothing
    _WhatIsAsked.hidden = True
    try:
        yield
    finally:
        _WhatIsAsked.hidden = False
        package.FakeTensor = before
