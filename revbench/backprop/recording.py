"""One call of a module, recorded so that backward can make it again and leave no trace.

What a second call would see or change differently from the first, and what is done about it:

- what the modules hold (parameters, buffers, attributes, layers, hooks, ``train()`` or ``eval()``): the second call finds what
  the first found, in shadows of the modules that are dropped after it (`revbench.backprop.module_state`); batch norms
  reuse what the first call computed (`revbench.backprop.replay`). Parameters are detached aliases, so that hooks on the
  caller's fire once, when autograd accumulates the gradient, and not also inside the recomputation. Of a plain function
  (`…plain`) that holds what it held nothing is exchanged: it leaves no trace;
- random numbers: the same are drawn again, and the global generators are where they would be (`…random_states`);
- autocast, default dtype, modes of torch functions: entered again (`…surroundings`);
- grad mode: the first call builds a graph, as under `stored`, which is dropped at once: the recomputation needs as much
  memory again later. Functions that are known not to look (`…plain`) are spared that.

While a module runs again it is changed for all to see: one thread at a time may run or back-propagate it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from revbench.backprop.arguments import NO_ARGUMENTS, Arguments
from revbench.backprop.module_state import ModuleState
from revbench.backprop.ownership import Holders
from revbench.backprop.random_states import Draws
from revbench.backprop.replay import Savings
from revbench.backprop.strangers import refuse_left, refuse_strangers
from revbench.backprop.structure import Structure, Structures
from revbench.backprop.surroundings import Surroundings

_thread = threading.local()
_NOTHING = nullcontext()


class Call:
    """One call of a recorded module, the first or a later one.

    Attributes:
        recording: of which it is a call.
        again: whether backward makes it.
    """

    def __init__(self, recording: Recording, *, again: bool) -> None:
        self.recording = recording
        self.again = again


def calls_now() -> Sequence[Call]:
    """Returns the recorded calls that this thread is inside of, the outermost first: what an observer tells calls apart by."""
    return getattr(_thread, "calls", ())


def is_recomputing() -> bool:
    """True inside a module while the backward pass runs it a second time.

    Module hooks fire in both passes, as under ``torch.utils.checkpoint``; a hook that counts or logs
    can ask this first.
    """
    return any(call.again for call in calls_now())


class Ready(NamedTuple):
    """What a later call needs.

    Attributes:
        shadows: what each module's class and ``__dict__`` must be; None if nothing of it has to be put back.
        aliases: what stands in for each parameter, by the parameter's ``id``.
    """

    shadows: Sequence[tuple[type[nn.Module], dict[str, Any]]] | None
    aliases: dict[int, Tensor]


class Recording:
    """A module and what its first call found; `run_again` recreates that for a later call.

    Args:
        module: the module to be run twice.
        name: how errors call it, e.g. ``block 3's G``.
        pytorch_is_whole: what `revbench.backprop.plain.functions_are_pytorchs` says.
        surroundings: of the first call.
        structures: what is known of the functions that were called by these names before.
        arguments: what it is called with after its inputs.

    Raises:
        RuntimeError: a module that can't be run twice.

    Attributes:
        parameters: those of the module, each once; what a node of autograd takes as inputs.
        plain: whether it is made of PyTorch's own layers in `nn.Sequential`, without hooks, and nothing else: then nobody
            reads another's buffers, and no tensor comes in from outside.
        eager: plain, and not compiled, whose results may lie in memory of the compiler's.
        needs: of each input of the first call, whether it needs gradient.
        hooks_input: whether the first call asked for the gradient of one of its inputs, by a hook or `retain_grad`.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        *,
        pytorch_is_whole: bool,
        surroundings: Surroundings,
        structures: Structures,
        arguments: Arguments = NO_ARGUMENTS,
    ) -> None:
        self.module = module
        self.name = name
        self.arguments = arguments
        self._surroundings = surroundings
        self._may_be_plain = pytorch_is_whole and not arguments and not _hooks_of_all()
        self._adopt(structures.of(module, name))
        self.parameters: list[nn.Parameter] = [parameter for parameter, _, _ in self._structure.parameters]
        self._draws: Draws | None = None
        self._prepared: ModuleState | None = None
        self._ready: Ready | None = None
        self.needs: tuple[bool, ...] = ()
        self.hooks_input = False

    def _adopt(self, structure: Structure) -> None:
        self._structure = structure
        self.modules = structure.modules
        self.plain = structure.plain and self._may_be_plain
        self.eager = self.plain and not structure.compiled
        self._savings = Savings(structure.stand_ins, private=self.plain)

    def _state(self) -> ModuleState:
        if self.plain and self._prepared is None and not self._structure.holds():
            self._adopt(Structure(self.module, self.name))
            if [id(parameter) for parameter, _, _ in self._structure.parameters] != list(map(id, self.parameters)):
                raise RuntimeError(
                    f"parameters of {self.name} were replaced by another function of the chain while it ran, so their gradient"
                    " would be lost; replace them before the call, or set strategy 'stored'"
                )
        return ModuleState(self._structure, plain=self.plain, untouched=self._savings.untouched(), name=self.name)

    def first(self, *inputs: Tensor, needs: Sequence[bool]) -> Any:
        """Call the module and record the circumstances. Call it without gradient.

        Args:
            inputs: what it is called with, then the tensors of its `arguments`.
            needs: of each, whether it needs gradient.

        Returns:
            What the module returned, without history.

        Raises:
            RuntimeError: the module changed its input in place, which no later pass could undo, or nothing that is known
                needs gradient and something that is not known does.
        """
        self.needs = tuple(needs)
        versions = [x._version for x in inputs]
        self.state = self._prepared or self._state()
        draws = (
            Draws(inputs[0].device, plain=self.plain, compiled=self._structure.compiled)
            if self._structure.may_draw or not self.plain
            else None
        )
        outer = calls_now()
        _thread.calls = (*outer, Call(self, again=False))
        layers = self._savings.first() if self.plain and len(inputs) == 1 else None
        if layers is None:
            self._savings.begin_noting()
        try:
            with self._surroundings.again(), _NOTHING if draws is None else draws.first():
                if layers is not None:
                    outputs = _one_after_the_other(layers, *inputs)
                else:
                    outputs = self.module(*inputs) if self.plain else self._with_a_graph(inputs, needs)
        finally:
            if layers is None:
                self._savings.end()
            _thread.calls = outer
        self._draws = draws if draws is not None and draws.may_be_needed() else None
        self.state.settle()
        if versions != [x._version for x in inputs]:
            raise RuntimeError(f"{self.name} changes its input in place; let its first operation write a new tensor")
        return outputs

    def arithmetic(self, value: Tensor) -> torch.dtype:
        """Returns the coarsest dtype that the first call computed in, as far as is known: that of its value, or autocast's."""
        coarse = self._surroundings.autocast_dtype
        if coarse is None or coarse is value.dtype:
            return value.dtype
        return max(value.dtype, coarse, key=lambda dtype: torch.finfo(dtype).eps)

    def _with_a_graph(self, inputs: Sequence[Tensor], needs: Sequence[bool]) -> Any:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(need) for x, need in zip(inputs, needs, strict=True)]
            for leaf in leaves:
                if leaf.requires_grad:
                    refuse_left(leaf, self.name)
            views = [leaf.view_as(leaf) for leaf in leaves]
            outputs = self._call(views, again=False)
            self.state.refuse_new()
            # Hooks of all modules belong to who observes (FlopCounterMode), and hook every input.
            given = views[: len(views) - len(self.arguments.tensors)]
            hooked = any(bool(view._backward_hooks) or view.retains_grad for view in given)
            self.hooks_input = not _hooks_of_all() and hooked
        if not (any(needs) or any(p.requires_grad for p in self.parameters)):  # the last moment: no node is made
            refuse_strangers(_tensors(outputs), (), self)
        return _without_history(outputs)

    def _call(self, inputs: Sequence[Tensor], *, again: bool) -> Any:
        if not self.arguments:
            return self.module(*inputs)
        count = len(inputs) - len(self.arguments.tensors)
        call = functools.partial(self.module, *inputs[:count])
        if again:
            return self.arguments.again(inputs[count:], call)
        return self.arguments.first(inputs[count:], call, self.name)

    def prepare_first(self) -> None:
        """Look before forward, if all functions of the chain are plain, at what the module holds, which no call will change.

        One after the other that is several times as fast as between two convolutions, whose data sweep the caches.
        """
        self._prepared = self._state()

    def prepare_again(self) -> None:
        """Make ready before backward, likewise, for one later call what can be made ready."""
        if self._prepared is not None:
            self._ready = self.make_ready()

    def make_ready(self) -> Ready:
        """Returns what a later call needs; nothing in place of what is there, where that is what the first call found."""
        if self.state.is_there():
            aliases: dict[int, Tensor] = {id(parameter): parameter for parameter in self.parameters}
            return Ready(None, aliases)
        return Ready(*self.state.shadows())

    def run_again(
        self, inputs: Sequence[Tensor], *, differentiate: bool, linked: int = 0, alone: Holders | None = None
    ) -> tuple[Any, list[Tensor], dict[int, Tensor]]:
        """Call the module once more, in the circumstances of the first call.

        Args:
            inputs: as those of `first`.
            differentiate: build a graph. A function that may look at grad mode finds that of `first` either way.
            linked: so many of the inputs are taken with their history; the others become leaves.
            alone: what the holders of a gradient are that ReLUs may write over (`revbench.backprop.ownership`).

        Returns:
            What it returned, the leaves, and what stands in for each parameter, by the parameter's ``id``: what to
            differentiate with respect to.

        Raises:
            RuntimeError: what the first call found was changed since and can't be put back.
        """
        self.state.check_unchanged()
        needs = self.needs[linked:]
        leaves = [x.detach().requires_grad_(need) for x, need in zip(inputs[linked:], needs, strict=True)]
        ready = self._ready or self.make_ready()
        self._ready = None
        if ready.shadows is None and not self.state.parameters_are_there():  # changed since, while backward ran
            ready = Ready(*self.state.shadows())
        layers = self._savings.again(alone) if self.plain and ready.shadows is None and len(inputs) == 1 else None
        there = [(type(module), module.__dict__) for module in self.modules] if ready.shadows is not None else ()
        versions = self.state.versions()
        outer = calls_now()
        _thread.calls = (*outer, Call(self, again=True))
        try:
            _exchange(self.modules, ready.shadows or ())
            if layers is None:
                self._savings.begin_replaying(alone)
            draws = _NOTHING if self._draws is None else self._draws.again(self.name)
            with self._surroundings.again(), draws, torch.set_grad_enabled(differentiate or not self.plain):
                # Views, because some observers (FlopCounterMode) want tensors that have a history.
                views = [x.view_as(x) for x in (*inputs[:linked], *leaves)]
                outputs = self._call(views, again=True) if layers is None else _one_after_the_other(layers, *views)
        finally:
            if layers is None:
                self._savings.end()
            _exchange(self.modules, there)
            _thread.calls = outer
        self.state.check_left_alone(versions)
        if ready.shadows is not None:
            for alias in ready.aliases.values():
                if alias._backward_hooks:  # set by the function: the first call set them on the parameter itself
                    alias._backward_hooks.clear()
        return outputs, leaves, ready.aliases

    def once_more(self, inputs: Sequence[Tensor], *, differentiate: bool = False) -> Any:
        """Returns what the module gives when called as by `run_again`; the values have no history."""
        outputs, _, _ = self.run_again(inputs, differentiate=differentiate)
        return _without_history(outputs)


def _hooks_of_all() -> bool:
    """Tells whether somebody hooks every module; plain functions are not called through their modules."""
    return bool(
        every_module._global_forward_hooks
        or every_module._global_forward_pre_hooks
        or every_module._global_backward_hooks
        or every_module._global_backward_pre_hooks
    )


def _one_after_the_other(layers: Sequence[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _exchange(modules: Sequence[nn.Module], states: Sequence[tuple[type[nn.Module], dict[str, Any]]]) -> None:
    """Give modules another class and ``__dict__``, or nothing if there are none."""
    for module, (kind, attributes) in zip(modules, states, strict=False):
        if type(module) is not kind:
            object.__setattr__(module, "__class__", kind)
        object.__setattr__(module, "__dict__", attributes)


def _without_history(outputs: Any) -> Any:
    if isinstance(outputs, tuple):
        return tuple(y.detach() if isinstance(y, Tensor) else y for y in outputs)
    return outputs.detach() if isinstance(outputs, Tensor) else outputs


def _tensors(outputs: Any) -> list[Tensor]:
    return [y for y in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(y, Tensor)]
