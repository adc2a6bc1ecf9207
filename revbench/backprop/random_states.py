"""Random numbers of a call: noted if it drew any, drawn again for a later call without a trace.

While nobody else can draw, PyTorch's global generators are set back around the later call. While another thread of Python
is alive it may draw from them at any moment; then each call of a function that draws takes its numbers from generators of
its own, which start where the global ones stand, and the global ones are moved on to where those ended. So the
numbers are the same in both calls, nobody sees a number twice, and with nobody drawing meanwhile they are those of
`stored`, bit for bit.

States are read past every dispatch mode: a state is a real tensor also where all others are fake, and who counts operations
must not see these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

States = dict[torch.device, Tensor]


def state_of(device: torch.device) -> Tensor:
    """The state of a device's generator."""
    with torch._C._DisableTorchDispatch():
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def random_states(device: torch.device) -> States:
    """The states of the generators that a module on this device may draw from."""
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
    """Whether a generator drew something in between."""
    with torch._C._DisableTorchDispatch():
        return any(state.numpy().tobytes() != after[device].numpy().tobytes() for device, state in before.items())


def others_may_draw(*, but: int) -> bool:
    """Whether a thread is alive that may draw from the global generators meanwhile.

    Args:
        but: the thread that called forward; while another thread back-propagates, it waits for it.
    """
    if threading.active_count() == 1:
        return False
    ours = (threading.get_ident(), but)
    return any(t.ident not in ours and not isinstance(t, threading._DummyThread) for t in threading.enumerate())


class Draws:
    """The random numbers of one call and of those that repeat it.

    Args:
        device: of the call's tensors.
        compiled: the call's code is compiled, and can't be given generators.
    """

    def __init__(self, device: torch.device, *, compiled: bool) -> None:
        self._before = random_states(device)
        self._after: States = {}
        self._own = False
        self._compiled = compiled
        self._thread = threading.get_ident()

    @contextmanager
    def first(self) -> Iterator[None]:
        """Around the first call."""
        self._own = not self._compiled and others_may_draw(but=self._thread)
        if not self._own:
            yield
            self._after = random_states(next(reversed(self._before)))
            return
        with OwnGenerators(self._before) as own:
            yield
        self._after = own.states()
        if differ(self._before, self._after) and not differ(self._before, random_states(next(reversed(self._before)))):
            put_back(self._after)

    def drew(self) -> bool:
        """Whether the first call drew random numbers (or another thread meanwhile)."""
        return differ(self._before, self._after)

    @contextmanager
    def again(self, name: str) -> Iterator[None]:
        """Around a later call, which draws the same numbers.

        Raises:
            RuntimeError: another thread drew from the global generators during the first call.
        """
        if not self._compiled and (self._own or others_may_draw(but=self._thread)):
            with OwnGenerators(self._before) as own:
                yield
            after = own.states()
        else:
            there = {device: state_of(device) for device in self._before}
            put_back(self._before)
            try:
                yield
                after = {device: state_of(device) for device in self._before}
            finally:
                put_back(there)
        if differ(after, self._after) and differ(after, self._before):
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
        """Where the generators stand."""
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
