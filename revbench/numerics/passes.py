"""One forward and backward pass of a model, with all that a comparison wants to know of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode

from revbench.case import is_gpu
from revbench.errors import first_line
from revbench.numerics.switches import Switches
from revbench.observing.calling import call
from revbench.observing.module_calls import around_module_calls, unless_entered
from revbench.observing.nested import dense

Loss = Callable[[Any, Any], Tensor]

FIRST_LOSS_SCALE = 2.0**16  # as torch.amp.GradScaler begins


@dataclass(frozen=True)
class Pass:
    """What one pass gave and left behind.

    Attributes:
        gradient: of each trainable parameter by name, divided by the loss scale; zeros where backward left none.
        loss: before scaling.
        switches: those that backward went by; None if they were not followed.
        unfollowed: why not, if that was tried.
        buffers: the model's, after the pass.
        random_state: of the CPU's generator, and of the GPU's, after the pass.
        own_functions: names of functions of autograd by somebody's own code, neither PyTorch's nor ours.
    """

    gradient: dict[str, Tensor]
    loss: float
    switches: Switches | None
    unfollowed: str | None
    buffers: dict[str, Tensor]
    random_state: tuple[Tensor, ...]
    own_functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """How a pass is made.

    Attributes:
        loss: from outputs and targets to a scalar.
        seed: of the random numbers inside the model.
        autocast: ``none``, ``bfloat16`` or ``float16``.
        loss_scale: what the loss is multiplied with before backward.
    """

    loss: Loss
    seed: int
    autocast: str = "none"
    loss_scale: float = 1.0

    def run(self, model: nn.Module, inputs: Any, targets: Any, name: str, switches: Switches | None = None) -> Pass:
        """Forward and backward; the model's buffers end as they began.

        Args:
            model: whose gradients are taken.
            inputs, targets: the batch.
            name: what errors call this pass.
            switches: follow, or impose. If they can't be followed, the pass is made without.

        Raises:
            FloatingPointError: the loss or a gradient is not finite.
        """
        before = {key: value.clone() for key, value in model.named_buffers()}
        try:
            return self._run(model, inputs, targets, name, switches)
        except FloatingPointError:
            raise
        except Exception as error:
            if switches is None:
                raise
            _put_back(model, before)
            # If this fails as well, it is the network's own error.
            plain = self._run(model, inputs, targets, name, None)
            kind = "" if isinstance(error, NotImplementedError) else f"{type(error).__name__}: "
            return replace(plain, unfollowed=f"{kind}{first_line(error)}")
        finally:
            _put_back(model, before)
            model.zero_grad(set_to_none=True)

    def with_loss_scale(self, model: nn.Module, inputs: Any, targets: Any) -> Step:
        """Under float16 the largest power of two up to `FIRST_LOSS_SCALE` with which the gradient is finite; else 1."""
        if self.autocast != "float16":
            return self
        scale = FIRST_LOSS_SCALE
        while scale > 1:
            found = replace(self, loss_scale=scale)
            try:
                found.run(model, inputs, targets, "stored")
            except FloatingPointError:
                scale /= 2
            else:
                return found
        return self

    def value(self, model: nn.Module, inputs: Any, targets: Any) -> float:
        """Returns the loss alone; the model's buffers end as they began."""
        before = {key: value.clone() for key, value in model.named_buffers()}
        device = device_of(model)
        seed_generators(self.seed)
        try:
            with (
                torch.enable_grad(),
                dropout_in_float32() if is_gpu(device) else nullcontext(),
                autocast_to(self.autocast, device),
            ):
                return float(self.loss(call(model, inputs), targets).item())
        finally:
            _put_back(model, before)

    def _run(self, model: nn.Module, inputs: Any, targets: Any, name: str, switches: Switches | None) -> Pass:
        device = device_of(model)
        seed_generators(self.seed)
        model.zero_grad(set_to_none=True)
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(autocast_to("none", device))  # backward, too, is not to know of an autocast around us
            if is_gpu(device):
                stack.enter_context(dropout_in_float32())
            if switches is not None:
                stack.enter_context(switches.watching())
            with autocast_to(self.autocast, device):
                loss = self.loss(call(model, inputs), targets)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"the loss of {name} is {loss.item()}; {self._first_not_finite(model, inputs, device)}"
                )
            # What `torch.autograd.backward` calls: itself it would put the modes of torch functions aside, by which switches
            # are followed in functions that backward runs again.
            own = own_functions(loss)
            scaled = loss * self.loss_scale
            _engine_run_backward(
                (scaled,), (torch.ones_like(scaled),), False, False, (), allow_unreachable=True, accumulate_grad=True
            )
        gradient = {
            key: (torch.zeros_like(p) if p.grad is None else dense(p.grad.detach()) / self.loss_scale)
            for key, p in model.named_parameters()
            if p.requires_grad
        }
        for key, value in reversed(gradient.items()):
            if not torch.isfinite(value).all():
                raise FloatingPointError(f"the gradient of {name} is not finite, on the way back first that of {key}")
        buffers = {key: value.clone() for key, value in model.named_buffers()}
        random_state = (torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if is_gpu(device) else []))
        return Pass(gradient, loss.item(), switches, None, buffers, random_state, own)

    def _first_not_finite(self, model: nn.Module, inputs: Any, device: str) -> str:
        names = {module: name or "the network" for name, module in model.named_modules()}
        found: list[str] = []

        def look(module: nn.Module, outputs: Any) -> None:
            values = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
            tensors = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
            if not found and not all(bool(torch.isfinite(v).all()) for v in tensors):
                found.append(names.get(module, type(module).__name__))

        seed_generators(self.seed)
        with around_module_calls(after=look), torch.no_grad(), autocast_to(self.autocast, device):
            call(model, inputs)
        return (
            f"the first output that is not finite is that of {found[0]}" if found else "every module's output is finite"
        )


def own_functions(loss: Tensor) -> tuple[str, ...]:
    """Returns the names of the functions of autograd that back-propagate to a loss by somebody's own code, neither PyTorch's
    nor ours."""
    found: dict[str, None] = {}
    seen = set()
    waiting: list[Any] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, BackwardCFunction):
            kind = getattr(type(node), "_forward_cls", type(node))
            if not f"{kind.__module__}.".startswith(("torch.", "revbench.")):
                found[kind.__name__] = None
        waiting += [before for before, _ in node.next_functions]
    return tuple(found)


def device_of(model: nn.Module) -> str:
    """Returns the kind of device of the first parameter: ``cpu``, ``cuda``."""
    return next((p.device.type for p in model.parameters()), "cpu")


def autocast_to(autocast: str, device: str) -> AbstractContextManager[Any]:
    """Autocast to ``bfloat16`` or ``float16`` on a kind of device; none, whatever surrounds it, if it is ``none``."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(
        device, dtype=None if autocast == "none" else getattr(torch, autocast), enabled=autocast != "none"
    )


def _put_back(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for key, value in model.named_buffers():
            if key in buffers:  # else it was made by this pass
                value.copy_(buffers[key])


def seed_generators(seed: int) -> None:
    """Seed PyTorch's, NumPy's and Python's generators.

    Not by `torch.manual_seed`, which would also decide how a GPU is seeded that is not in use yet.
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one is what a network may draw from
    random.seed(seed)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Inside, random numbers may be drawn and generators seeded; afterwards they are as they were, on every device."""
    devices = list(range(len(torch.cuda.default_generators))) if torch.cuda.is_initialized() else []
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextmanager
def dropout_in_float32() -> Iterator[None]:
    """A GPU's dropout draws other masks in other dtypes; inside, it draws them in float32 and so the same in each."""
    mode = _DropoutInFloat32()
    with around_module_calls(lambda _: unless_entered(mode)), mode:
        yield


class _DropoutInFloat32(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_dropout if func is F.dropout else func)(*args, **(kwargs or {}))


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not 0 < p < 1:
        return F.dropout(x, p, training, inplace)
    kept = torch.rand(x.shape, device=x.device, dtype=torch.float32) >= p
    factor = kept.to(x.dtype) / (1 - p)
    return x.mul_(factor) if inplace else x * factor
