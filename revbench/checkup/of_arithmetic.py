"""Checks of coarser arithmetic, and of depth: what rounding does, and what is kept."""

from __future__ import annotations

import copy
import math
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from revbench.checkup.building import deeper
from revbench.checkup.declared import Answer
from revbench.checkup.dropouts import switch_dropouts_off
from revbench.checkup.of_gradients import by, reference, relative_error
from revbench.checkup.subject import Loss, Subject, Unanswerable, share
from revbench.checkup.twins import store
from revbench.errors import first_line
from revbench.numerics.derivative import norm_of
from revbench.numerics.passes import seed_generators
from revbench.observing.calling import call
from revbench.observing.module_calls import around_module_calls
from revbench.observing.nested import map_tensors, tensors_in
from revbench.probes.live_tensors import LiveTensors
from revbench.workload import Workload

_UNLIKE = 0.5  # of the gradient's norm: what no rounding to bfloat16 explains
_FAR = 0.1  # more than this, and four times what stored activations have, is lost by reconstruction
_OFF = 0.1  # the same of float32
_SAME = 1e-2  # outputs that differ by less in float32 are those of one function
_STAYS, _GROWS = 0.03, 0.1  # of what further blocks return
_ENOUGH_BYTES = 8 * 2**20
_MOST_TIMES = 256  # the batch
_DEEPER = 4  # times as deep
_LONG_SECONDS = 1.0  # then four times as deep takes too long
_NOT_DEEPER = "it can't be made deeper: its factory has no argument like depth=… or blocks=…"


def autocast(subject: Subject) -> Answer:
    """Backward outside the region, as PyTorch's documentation has it."""
    return _under_autocast(subject, inside=False)


def autocast_cache(subject: Subject) -> Answer:
    """Backward inside the region: weights that were cast without a graph are found by having no gradient."""
    return _under_autocast(subject, inside=True)


def _under_autocast(subject: Subject, *, inside: bool) -> Answer:
    expected = reference(subject)
    found = _autocast_gradient(subject, subject.fresh(), inside=inside)
    size = norm_of(expected)
    without = [
        n for n, g in expected.items() if norm_of({n: g}) > 1e-6 * size and (n not in found or not found[n].any())
    ]
    if without:
        first = without[0].removeprefix("model.")
        return "failed", f"{len(without)} of {len(expected)} weights get no gradient, first {first}"
    other = subject.fresh()
    words, most = "off the float64 gradient", _UNLIKE
    if store(other, subject.own_setter) is not None:
        stored = relative_error(_autocast_gradient(subject, other, inside=inside), expected)
        words += f", {share(stored)} with stored activations"
        most = max(_UNLIKE if inside else _FAR, 4 * stored)
    return by(relative_error(found, expected), words, most)


def _autocast_gradient(subject: Subject, model: nn.Module, *, inside: bool) -> dict[str, Tensor]:
    model = model.float()
    inputs, targets = (_cast(torch.float32, value) for value in (subject.inputs, subject.targets))
    seed_generators(7)
    with torch.autocast(next(tensors_in(subject.inputs)).device.type, torch.bfloat16):
        loss = subject.loss(call(model, inputs), targets)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return {f"model.{name}": p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


def float32(subject: Subject) -> Answer:
    """The gradient of the same weights and batch."""
    found = _in_float32(subject.fresh(), subject.inputs, subject.targets, subject.loss)
    if not found.gradient_error <= _OFF and not found.output_error <= _SAME:
        raise Unanswerable(
            f"the outputs themselves differ by {share(found.output_error)}: it has steps, or no normalisation"
        )
    return by(found.gradient_error, "off the float64 gradient", _OFF)


def depth(subject: Subject) -> Answer:
    """The same, the deeper the longer that takes no time."""
    said: list[str] = []
    for times in (_DEEPER, _DEEPER**2, _DEEPER**3):
        began = time.monotonic()
        try:
            built = deeper(subject.case, times, dtype="float64")
        except Exception as error:  # of a factory that has no such depth
            said.append(f"{times} times can't be made ({first_line(error)})")
            break
        if built is None:
            raise Unanswerable(_NOT_DEEPER)
        inputs, targets = built.batch()
        found = _in_float32(built.model, inputs, targets, built.loss)
        if not found.gradient_error <= _OFF:
            if _SAME < found.output_error < math.inf:  # forward itself is another function in float32
                said.append(f"the outputs themselves differ by {share(found.output_error)} at {times} times")
                break
            return "failed", f"{times} times as deep {share(found.gradient_error)} of the float32 gradient is wrong"
        said.append(f"{share(found.gradient_error)} at {times} times")
        if time.monotonic() - began > _LONG_SECONDS:
            break
    if " at " not in said[0] or said[0].startswith("the outputs"):
        raise Unanswerable(said[0])
    return "passed", f"off the float64 gradient: {', '.join(said)}"


class _InFloat32(NamedTuple):
    """How far float32 is from float64, of the norm: the gradient, and the outputs."""

    gradient_error: float
    output_error: float


def _in_float32(model: nn.Module, inputs: Any, targets: Any, loss: Loss) -> _InFloat32:
    exact, rounded = (_pass_in(dtype, model, inputs, targets, loss) for dtype in (torch.float64, torch.float32))
    return _InFloat32(relative_error(rounded[0], exact[0]), relative_error(rounded[1], exact[1]))


def _pass_in(
    dtype: torch.dtype, model: nn.Module, inputs: Any, targets: Any, loss: Loss
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the gradient and the outputs, both by name and in float64."""
    twin = copy.deepcopy(model).to(dtype)
    switch_dropouts_off(twin)
    seed_generators(7)
    outputs = call(twin, _cast(dtype, inputs))
    kept = {str(i): y.detach().double() for i, y in enumerate(tensors_in(outputs)) if y.is_floating_point()}
    loss(outputs, _cast(dtype, targets)).backward()
    return {name: p.grad.double() for name, p in twin.named_parameters() if p.grad is not None}, kept


def memory(subject: Subject) -> Answer:
    """How much of what its modules return is held at the peak of a step, of what a deeper network returns more."""
    items, compiled = subject.case.batch_size, _compiled_frames()
    first = deeper(subject.case, 1, dtype="float32")
    if first is None:
        raise Unanswerable(_NOT_DEEPER)
    items *= max(
        1, math.ceil(_ENOUGH_BYTES / max(1, _held(first).returned))
    )  # what is of no size beside a generator's state
    shallow, deep = (deeper(subject.case, times, dtype="float32", batch_size=items) for times in (1, _DEEPER))
    assert shallow is not None
    assert deep is not None
    try:
        few, many = _held(shallow), _held(deep)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise Unanswerable(f"it takes more memory than there is: {first_line(error)}") from error
    if _compiled_frames() > compiled:
        raise Unanswerable("it is compiled, and what compiled code keeps is not seen")
    growth = (many.peak - few.peak) / max(1, many.returned - few.returned)
    words = f"{max(growth, 0.0):.0%} of what further blocks return is kept, {_DEEPER} times as deep"
    if growth <= _STAYS:
        return "passed", words
    return ("failed" if growth >= _GROWS else "can't tell"), words


def _compiled_frames() -> int:
    """Returns how many pieces `torch.compile` has compiled in this process."""
    return counters["frames"]["ok"]


class _Bytes(NamedTuple):
    """Of one step: the peak above the steady state, and what modules without children return in forward."""

    peak: int
    returned: int


def _held(built: Workload) -> _Bytes:
    model = built.model
    inputs, targets = built.batch()
    returned = 0

    def count(module: nn.Module, outputs: Any) -> None:
        nonlocal returned
        if isinstance(outputs, Tensor) and not any(True for _ in module.children()):
            returned += outputs.numel() * outputs.element_size()

    with around_module_calls(after=count), torch.no_grad():
        call(model, _cast(torch.float32, inputs))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = LiveTensors()
    live.track(model, tensors_in(inputs), tensors_in(targets))
    steady = live.live_bytes
    with live:
        built.loss(call(model, inputs), targets).backward()
    return _Bytes(live.peak_bytes - steady, returned)


def _cast(dtype: torch.dtype, value: Any) -> Any:
    return map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x.clone(), value)
