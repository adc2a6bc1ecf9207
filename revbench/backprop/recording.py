"""One call of a module, recorded so that backward can make it again and leave no trace.

What a second call would see or change differently from the first, and what is done about it:

- random numbers: the generators' states are kept if the first call drew from them, and put back
  around the second, so that dropout masks are equal and the global state is untouched;
- buffers (batch-norm statistics, counters, anything): the second call works on copies of the values from before
  the first call, and the copies are dropped; batch norms themselves reuse what the first call computed
  (`revbench.backprop.replay`);
- ``train()`` or ``eval()`` called in between: the flags of the first call are put back;
- autocast: the first call's setting is entered again, without the weight cache (a cached cast made
  without gradient would be taken by a later call that wants one);
- parameters: the second call sees detached aliases, so that hooks on the caller's parameters fire
  once, when autograd accumulates the gradient, and not also inside the recomputation.

While a module runs again it is changed for all to see: one thread at a time may run or back-propagate it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.modules import module as every_module
from torch.nn.utils import parametrize

from revbench.backprop.random_states import differ, put_back, random_states, state_of
from revbench.backprop.replay import Savings

# Numbers in a buffer that is kept whether it seems changed or not: batch norm's kernels change running values
# without raising their version. A larger one that no version says is changed is taken to be only read.
_SMALL = 4096
# Files of torch.nn.modules whose layers draw no random numbers, but for these; comparing the generators' states
# takes longer than a small convolution.
_NEVER_DRAW = frozenset(
    (
        "activation",
        "batchnorm",
        "container",
        "conv",
        "flatten",
        "instancenorm",
        "linear",
        "normalization",
        "padding",
        "pooling",
    )
)
_DRAW = (nn.RReLU, nn.MultiheadAttention, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_thread = threading.local()


class Run:
    """One call of a recorded module, the first or a later one.

    Attributes:
        recording: of which it is a call.
        again: whether backward makes it.
    """

    def __init__(self, recording: Recording, *, again: bool) -> None:
        self.recording = recording
        self.again = again


def runs_now() -> Sequence[Run]:
    """The recorded calls that this thread is inside of, the outermost first: what an observer tells calls apart by."""
    return getattr(_thread, "runs", ())


def is_recomputing() -> bool:
    """True inside a module while the backward pass runs it a second time.

    Module hooks fire in both passes, as under ``torch.utils.checkpoint``; a hook that counts or logs
    can ask this first.
    """
    return any(run.again for run in runs_now())


@contextmanager
def _inside(run: Run) -> Iterator[None]:
    outer = runs_now()
    _thread.runs = (*outer, run)
    try:
        yield
    finally:
        _thread.runs = outer


class Recording:
    """A module and what its first call found; `again` recreates that for a later call.

    Args:
        module: the module to be run twice.
        name: how errors call it, e.g. ``block 3's G``.

    Attributes:
        parameters: those of the module, each once; what a node of autograd takes as inputs.
        plain: whether it is made of PyTorch's own layers in `nn.Sequential`, without hooks, and nothing else: then nobody
            reads another's buffers, and no tensor comes in from outside.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module = module
        self.name = name
        self._modules = _walk(module)
        self._slots = [
            (owner, key, parameter)
            for owner in self._modules
            for key, parameter in owner._parameters.items()
            if parameter is not None
        ]
        self.parameters: list[nn.Parameter] = list({id(p): p for _, _, p in self._slots}.values())
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in self._modules)
        hooked = hooked or bool(every_module._global_forward_hooks or every_module._global_forward_pre_hooks)
        if any(isinstance(m, torch.jit.ScriptModule) for m in self._modules):
            raise RuntimeError(f"{name} holds a ScriptModule, which can't be run again; set strategy 'stored'")
        self.plain = not hooked and all(_is_plain(m) for m in self._modules)
        # Compiled code computes its batch norms itself (`_orig_mod`: what `torch.compile` calls the module that it wraps).
        compiled = any(m._compiled_call_impl is not None or "_orig_mod" in m._modules for m in self._modules)
        self._savings = Savings(() if compiled else self._modules, private=self.plain)

    def first(self, *inputs: Tensor) -> Any:
        """Run the module and record the circumstances. Call it without gradient.

        Raises:
            RuntimeError: the module changed its input in place, which no later pass could undo.
        """
        self._training = [module.training for module in self._modules]
        self._requires_grad = [parameter.requires_grad for parameter in self.parameters]
        device = inputs[0].device
        self._autocast: tuple[str, bool, torch.dtype] | None = None
        if torch.amp.is_autocast_available(device.type):
            self._autocast = (
                device.type,
                torch.is_autocast_enabled(device.type),
                torch.get_autocast_dtype(device.type),
            )
        versions = [x._version for x in inputs]
        rng = {} if self.plain and not any(map(_may_draw, self._modules)) else random_states(device)
        with (
            self._savings.noting() as untouched,
            self._autocast_again(),
            _without_parametrization_cache(),
            _inside(Run(self, again=False)),
        ):
            self._stateful = [m for m in self._modules if m._buffers and m not in untouched]
            _refuse_buffers_with_gradient(self._stateful, self.name)
            before = [
                (owner, key, buffer, buffer._version, buffer.clone())
                for owner in self._stateful
                for key, buffer in owner._buffers.items()
                if buffer is not None
            ]
            outputs = self.module(*inputs)
        self._rng = rng if rng and differ(rng, random_states(device)) else None
        if versions != [x._version for x in inputs]:
            raise RuntimeError(f"{self.name} changes its input in place; let its first operation write a new tensor")
        self._versions = [parameter._version for parameter in self.parameters]
        self._before: dict[tuple[int, str], Tensor] = {}
        self._unchanged: dict[tuple[int, str], tuple[Tensor, int]] = {}
        for owner, key, buffer, version, value in before:
            same = owner._buffers.get(key) is buffer and buffer._version == version
            if same and buffer.numel() > _SMALL:
                self._unchanged[id(owner), key] = (buffer, version)
            else:
                self._before[id(owner), key] = value
        return outputs

    @contextmanager
    def again(self) -> Iterator[dict[int, Tensor]]:
        """Recreate the circumstances of the first call.

        Yields:
            The alias that stands in for each parameter, by the parameter's ``id``: what to
            differentiate with respect to.

        Raises:
            RuntimeError: a parameter, or a buffer that the first call only read, was changed since.
        """
        self._check_unchanged()
        aliases = {
            id(p): p.detach().requires_grad_(need) for p, need in zip(self.parameters, self._requires_grad, strict=True)
        }
        parameters = [(owner, key, owner._parameters.get(key)) for owner, key, _ in self._slots]
        buffers = [(owner, dict(owner._buffers)) for owner in self._stateful]
        toggled = [m for m, flag in zip(self._modules, self._training, strict=True) if m.training != flag]
        rng = None if self._rng is None else {device: state_of(device) for device in self._rng}
        try:
            for owner, key, parameter in self._slots:
                owner._parameters[key] = aliases[id(parameter)]  # type: ignore[assignment]
            for owner, found in buffers:
                for key, buffer in found.items():
                    read = self._unchanged.get((id(owner), key))
                    value = self._before.get((id(owner), key), buffer)
                    owner._buffers[key] = read[0] if read else None if value is None else value.clone()
            for module in toggled:
                module.training = not module.training
            if self._rng is not None:
                put_back(self._rng)
            with (
                self._savings.replaying(),
                self._autocast_again(),
                _without_parametrization_cache(),
                _inside(Run(self, again=True)),
            ):
                yield aliases
        finally:
            for owner, key, there in parameters:
                if there is None:
                    owner._parameters.pop(key, None)
                else:
                    owner._parameters[key] = there
            for owner, found in buffers:
                owner._buffers.update(found)
            for module in toggled:
                module.training = not module.training
            if rng is not None:
                put_back(rng)

    def once_more(self, x: Tensor, differentiate: bool = False) -> Tensor:
        """Run the module as `first` did, or as backward does, without a trace; the value has no history."""
        with self.again(), torch.set_grad_enabled(differentiate):
            value: Tensor = self.module(x.detach().requires_grad_(differentiate))
        return value.detach()

    def states_once_more(self, *state: Tensor) -> Any:
        """As `once_more` without gradient, for a unit of several tensors."""
        with self.again(), torch.no_grad():
            return self.module(*state)

    def _check_unchanged(self) -> None:
        for parameter, version in zip(self.parameters, self._versions, strict=True):
            if parameter._version != version:
                raise RuntimeError(
                    f"a parameter of {self.name} (shape {tuple(parameter.shape)}) was changed in place between its use in"
                    " forward and backward, so its gradient can't be computed; change it after backward"
                )
        for owner in self._stateful:
            for key in owner._buffers:
                read = self._unchanged.get((id(owner), key))
                if read is not None and read[0]._version != read[1]:
                    raise RuntimeError(
                        f"the buffer {key!r} of {self.name} was changed between forward and backward, so its gradient"
                        " can't be computed; change it after backward"
                    )

    def _autocast_again(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        device, enabled, dtype = self._autocast
        if not enabled and not torch.is_autocast_enabled(device):
            return nullcontext()
        return torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=False)


def refuse_strangers(edges: Sequence[GradientEdge], known: Iterable[Tensor], name: str) -> None:
    """Raise if a recomputed graph reaches a tensor that needs gradient and is neither input nor parameter.

    Its gradient would be lost without a word: the recomputation differentiates with respect to what it knows.
    """
    leaves = {id(tensor) for tensor in known}
    pending = [edge.node for edge in edges]
    seen = set(pending)
    while pending:
        node = pending.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in leaves:
            raise RuntimeError(
                f"{name} uses a tensor of shape {tuple(variable.shape)} that needs gradient but is neither its input nor"
                " a registered parameter, so its gradient would be lost; register it, pass it through the stream, or set"
                " strategy 'stored'"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                pending.append(following)


def _walk(root: nn.Module) -> list[nn.Module]:
    """As `nn.Module.modules`, without the names that this builds for each."""
    found: dict[nn.Module, None] = {}
    pending = [root]
    while pending:
        module = pending.pop()
        if module not in found:
            found[module] = None
            pending += [child for child in module._modules.values() if child is not None]
    return list(found)


def _is_sequence(kind: type[nn.Module]) -> bool:
    own = kind.forward is nn.Sequential.forward and kind.__iter__ is nn.Sequential.__iter__  # type: ignore[attr-defined]
    return own and kind.__call__ is nn.Module.__call__


def _is_plain(module: nn.Module) -> bool:
    file = type(module).__module__.removeprefix("torch.nn.modules.")
    own = file in _NEVER_DRAW or file == "dropout" or _is_sequence(type(module))
    # A weight that is a plain attribute (a hypernetwork's, say) is a tensor from outside.
    return own and not ("forward" in module.__dict__ or "weight" in module.__dict__ or "bias" in module.__dict__)


def _may_draw(module: nn.Module) -> bool:
    """Whether a plain module may draw random numbers, as far as is known of its kind."""
    known = type(module).__module__.removeprefix("torch.nn.modules.") in _NEVER_DRAW or _is_sequence(type(module))
    return not known or isinstance(module, _DRAW)


def _refuse_buffers_with_gradient(modules: Iterable[nn.Module], name: str) -> None:
    for module in modules:
        for key, buffer in module._buffers.items():
            if buffer is not None and buffer.requires_grad:
                raise RuntimeError(
                    f"the buffer {key!r} of {name} needs gradient, which would be lost; make it a parameter, pass it through"
                    " the stream, or set strategy 'stored'"
                )


def _without_parametrization_cache() -> AbstractContextManager[None]:
    return _parametrization_cache_aside() if parametrize._cache_enabled else nullcontext()


@contextmanager
def _parametrization_cache_aside() -> Iterator[None]:
    """Inside `parametrize.cached()`, compute parametrized weights anew: the cache holds those of the other pass."""
    kept = parametrize._cache_enabled, parametrize._cache
    parametrize._cache_enabled, parametrize._cache = 0, {}
    try:
        yield
    finally:
        parametrize._cache_enabled, parametrize._cache = kept
