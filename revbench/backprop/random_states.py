"""Random numbers of a call: noted if it drew any, drawn again for a later call without a trace.

While nobody else can draw, PyTorch's global generators are set back around the later call. While another thread of Python
is alive it may draw from them at any moment; then each call of a function that draws takes its numbers from generators of
its own. At first these start where the global ones stand, which are moved on to where they ended: with threads that do not
draw, the numbers are those of `stored`, bit for bit. As soon as another thread has been seen to draw, which leaves nothing
to be reproduced, they start from a number that is drawn from the global one. So both calls draw the same, and nobody sees a
number twice.

States are read past every dispatch mode: a state is a real tensor also where all others are fake, and who counts operations
must not see these.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

States = dict[torch.device, Tensor]


def state_of(device: torch.device) -> Tensor:
    """Returns the state of a device's generator."""
    with torch._C._DisableTorchDispatch():
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def random_states(device: torch.device) -> States:
    """Returns the states of the generators that a module on this device may draw from."""
    devices = {torch.device("cpu")}
    if device.type == "cuda":
        devices.add(device)
    return {d: state_of(d) for d in devices}


def put_back(states: States) -> None:
    """Set generators to states that `random_states` gave."""
    with torch._C._DisableTorchDispatch():
        for device, state in states.items():
            if device.type == "cuda":
                torch.cuda.set_rng_state(state, device)
            else:
                torch.set_rng_state(state)


def differ(before: States, after: States) -> bool:
    """Tells whether a generator drew something in between."""
    with torch._C._DisableTorchDispatch():
        return any(state.numpy().tobytes() != after[device].numpy().tobytes() for device, state in before.items())


def others_may_draw(*, but: int) -> bool:
    """Tells whether a thread is alive that may draw from the global generators meanwhile.

    Args:
        but: the thread that called forward; while another thread back-propagates, it waits for it.
    """
    if threading.active_count() == 1:
        return False
    ours = (threading.get_ident(), but)
    return any(t.ident not in ours and not isinstance(t, threading._DummyThread) for t in threading.enumerate())


@dataclass
class Others:
    """What is known of the other threads of this process.

    Attributes:
        have_drawn: whether one of them has ever drawn from a global generator while a function ran. From then on functions
            get numbers that are set aside for them.
    """

    have_drawn: bool = False


OTHERS = Others()


def _reserved(states: States) -> States:
    """States of generators that start from a number drawn from the global one, for the same devices."""
    with torch._C._DisableTorchDispatch():
        seed = int(torch.randint(2**63 - 1, (1,)))
        return {device: torch.Generator(device).manual_seed(seed).get_state() for device in states}


class Draws:
    """The random numbers of one call and of those that repeat it.

    Args:
        device: of the call's tensors.
        plain: the function is known to draw PyTorch's numbers alone, and in forward alone.
        compiled: the call's code is compiled, and can't be given generators.
    """

    def __init__(self, device: torch.device, *, plain: bool, compiled: bool) -> None:
        self._before = random_states(device)
        self._after: States = {}
        self._own = False
        self._open = False  # another thread may have drawn in between
        self._compiled = compiled
        self._thread = threading.get_ident()
        self._plain = plain
        # Python's own numbers; NumPy's state takes too long to read.
        self._python = None if plain else random.getstate()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Surrounds the first call."""
        others = others_may_draw(but=self._thread)
        self._own, self._open = others and not self._compiled, others and self._compiled
        if not self._own:
            yield
            self._after = {device: state_of(device) for device in self._before}
            if self._python is not None and random.getstate() == self._python:
                self._python = None
            return
        self._python = None  # another thread may draw them meanwhile
        there = self._before
        if OTHERS.have_drawn:
            self._before = _reserved(there)
        with OwnGenerators(self._before) as own:
            yield
        self._after = own.states()
        if not OTHERS.have_drawn:
            if differ(there, {device: state_of(device) for device in there}):
                OTHERS.have_drawn = True
            elif self.drew():
                put_back(self._after)

    def may_be_needed(self) -> bool:
        """Tells whether a later call must draw from where this one did.

        A function of one's own may draw in backward alone (a gradient's dropout), or put the state back itself
        (`torch.random.fork_rng`); so its later calls find the state of the first unless that is dear.
        """
        return self.drew() or not (self._plain or self._own or self._open)

    def drew(self) -> bool:
        """Tells whether the first call drew random numbers (or another thread meanwhile)."""
        return differ(self._before, self._after)

    @contextmanager
    def again(self, name: str) -> Iterator[None]:
        """Surrounds a later call, which draws the same numbers.

        Raises:
            RuntimeError: another thread drew from the global generators while compiled code ran.
        """
        others = others_may_draw(but=self._thread)
        if not self._compiled and (self._own or others):
            with OwnGenerators(self._before):
                yield
            return
        there = {device: state_of(device) for device in self._before}
        python = random.getstate() if self._python is not None else None
        put_back(self._before)
        if self._python is not None:
            random.setstate(self._python)
        try:
            yield
            after = {device: state_of(device) for device in self._before}
        finally:
            put_back(there)
            if python is not None:
                random.setstate(python)
        # How many numbers are drawn can depend on the input (RReLU), so only where somebody else may have drawn is it compared.
        if (self._open or others) and differ(after, self._after) and differ(after, self._before):
            raise RuntimeError(
                f"another thread drew from PyTorch's global random generator while {name} ran, so its random numbers can't"
                " be drawn again; give that thread a torch.Generator of its own, or set strategy 'stored'"
            )


_ADDED: Mapping[Any, Callable[..., Tensor]] = {
    torch.ops.aten.rand_like.default: lambda x, generator: x.uniform_(generator=generator),
    torch.ops.aten.randn_like.default: lambda x, generator: x.normal_(generator=generator),
}
_swapping = threading.Lock()


class OwnGenerators(TorchDispatchMode):
    """Inside, operations draw from generators that start at the given states, not from the global ones."""

    def __init__(self, states: States) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._generators = {device: torch.Generator(device) for device in states}
        with torch._C._DisableTorchDispatch():
            for device, state in states.items():
                self._generators[device].set_state(state)

    def states(self) -> States:
        """Returns where the generators stand."""
        with torch._C._DisableTorchDispatch():
            return {device: generator.get_state() for device, generator in self._generators.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
            return func(*args, **kwargs)
        generator = self._generator(args, kwargs)
        if generator is None:
            return func(*args, **kwargs)
        if func in _ADDED:
            return _ADDED[func](torch.empty_like(args[0], **kwargs), generator)
        for overload in (func, *(getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())):
            names = [argument.name for argument in overload._schema.arguments]
            if "generator" in names and [n for n in names if n != "generator"] == [
                argument.name for argument in func._schema.arguments if argument.name != "generator"
            ]:
                position = names.index("generator")
                if len(args) > position:
                    args = (*args[:position], generator, *args[position + 1 :])
                else:
                    kwargs = {**kwargs, "generator": generator}
                return overload(*args, **kwargs)
        with _swapping:  # an operation that takes no generator: the global one is lent to it
            there = state_of(generator.device)
            put_back({generator.device: generator.get_state()})
            try:
                return func(*args, **kwargs)
            finally:
                generator.set_state(state_of(generator.device))
                put_back({generator.device: there})

    def _generator(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Generator | None:
        for value in args:
            if isinstance(value, Tensor):
                return self._generators.get(value.device)
        return self._generators.get(torch.device(kwargs.get("device") or "cpu"))
