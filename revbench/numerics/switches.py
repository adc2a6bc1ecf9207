"""Which way each ReLU unit and pooling window of a step went; followed, compared, and frozen.

A network of ReLUs is smooth but for these switches. Near 0 a unit may fall on the other side in another arithmetic:
then its gradient is a different one, by far more than rounding. With the switches frozen to those of a reference the
network is a smooth function, and what is left of the gradient's error is rounding: its smooth part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from revbench.backprop.recording import Call, calls_now
from revbench.backprop.replay import watched_relus
from revbench.observing.module_calls import around_module_calls, unless_entered

_SOME = 8192  # of an activation's numbers are looked at
_NEAR_ZERO = 0.1  # of their root mean square: within which their density is taken for that at zero


@dataclass
class _Call:
    """A call of a module that is under way: its name, and how many switches it passed while backward runs it again."""

    name: str
    passed: int = 0


class Switches:
    """The switches of one step of one network: units of ReLU, leaky ReLU, PReLU, ReLU6 and hardtanh, windows of max pooling.

    They are found as functions are called (`torch.relu`, `torch.nn.functional`, `torch.nn.ReLU` and the like), in
    forward and in what backward runs again; other piecewise functions (`abs`, `clamp`, `maximum`) are not followed.
    Observing changes no bit. What `torch.compile` made does not pass here.

    Args:
        model: names the modules.
        frozen_to: the switches of another step of the same network (any dtype) that are imposed on this one, in forward
            and wherever backward runs again.

    Attributes:
        choices: of each call, in forward's order: for units whether they let pass (the activation's shape), for
            windows the index of the largest. Those that backward went by: where a function ran again, its second call's.
        inputs: of each call of units with one kink, at zero: some of what they are given, float64.
        places: the innermost module of each call.
        casts: modules inside which a value was cast to a narrower floating-point dtype, with the narrowest; a float64
            reference that does this is none.
    """

    def __init__(self, model: nn.Module, *, frozen_to: Switches | None = None) -> None:
        self._names = {module: name or "the network itself" for name, module in model.named_modules()}
        self._frozen = frozen_to
        self.choices: dict[int, Tensor] = {}
        self.inputs: dict[int, Tensor] = {}
        self.places: dict[int, str] = {}
        self.casts: dict[str, torch.dtype] = {}
        self._passed = 0  # in forward
        self._stack: list[_Call] = []
        self._starts: dict[str, list[int]] = {}
        self._recorded: dict[Any, int] = {}  # where the calls of a recorded function begin
        self._again: Counter[Call] = Counter()
        self._mode = _Mode(self)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow the step inside: forward and backward."""
        with watched_relus(), around_module_calls(self._around), self._mode:
            yield

    @contextmanager
    def _around(self, module: nn.Module) -> Iterator[None]:
        name = self._names.get(module, type(module).__name__)
        if not _in_backward():
            self._starts.setdefault(name, []).append(self._passed)
        self._stack.append(_Call(name))
        try:
            with unless_entered(self._mode):
                yield
        finally:
            self._stack.pop()

    def number(self) -> int:
        """Returns the number, in forward's order, of the switch that is passed now.

        Raises:
            NotImplementedError: backward runs something again that can't be told which call of forward it repeats.
        """
        calls = calls_now()
        for call in reversed(calls):
            if call.again:
                if call.recording not in self._recorded:
                    raise NotImplementedError("a function runs again whose first call was not watched")
                found = self._recorded[call.recording] + self._again[call]
                self._again[call] += 1
                break
        else:
            found = self._found_by_module() if _in_backward() else self._next()
        for call in calls:
            if not call.again:
                self._recorded.setdefault(call.recording, found)
        return found

    def _next(self) -> int:
        self._passed += 1
        self.places[self._passed - 1] = self._here()
        return self._passed - 1

    def _here(self) -> str:
        return self._stack[-1].name if self._stack else "outside of any module"

    def _found_by_module(self) -> int:
        """Finds the number in reversible networks that are not ours: a module that backward calls repeats its only call in
        forward."""
        call = self._stack[0] if self._stack else None
        starts = self._starts.get(call.name, []) if call else []
        if call is None or len(starts) != 1:
            what = f"module {call.name}, which forward called {len(starts)} times," if call else "a function"
            raise NotImplementedError(f"backward runs {what} again: which ReLU is which can't be told")
        call.passed += 1
        return starts[0] + call.passed - 1

    def passed(
        self, choice: Callable[[], Tensor], shape: torch.Size | None = None, *, some: Tensor | None = None
    ) -> Tensor | None:
        """Take note of a switch; returns the choice that is imposed on it, if one is.

        Args:
            choice: gives what is noted.
            shape: of the activation, if the imposed choice must have it.
            some: of what units with a kink at zero are given.

        Raises:
            NotImplementedError: the reference took another way here, or its activation had another shape.
        """
        number = self.number()
        if self._frozen is None:
            self.choices[number] = choice()
            if some is not None:
                self.inputs[number] = some
            return None
        imposed = self._frozen.choices.get(number)
        if imposed is None or (shape is not None and imposed.shape != shape):
            raise NotImplementedError(
                f"{self._here()} is called otherwise than in the reference: which switch is which can't be told"
            )
        return imposed

    def look_for_cast(self, inputs: Any, out: Any) -> None:
        """Note a result that is narrower than what it was made of."""
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return
        if any(isinstance(x, Tensor) and x.is_floating_point() and x.itemsize > out.itemsize for x in inputs):
            before = self.casts.get(self._here(), out.dtype)
            self.casts[self._here()] = max(before, out.dtype, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def frozen(self) -> bool:
        """Whether the choices are those of another step."""
        return self._frozen is not None

    def units(self) -> int:
        """Returns how many units and windows there are."""
        return sum(choice.numel() for choice in self.choices.values())

    def flips(self, reference: Switches) -> dict[str, int]:
        """Counts by module the units and windows that went another way than in a reference step of the same network.

        Raises:
            NotImplementedError: the two steps did not call the same functions on tensors of the same shapes.
        """
        shapes, others = ({number: c.shape for number, c in of.choices.items()} for of in (self, reference))
        if shapes != others:
            raise NotImplementedError("the network does not compute the same way in each dtype")
        found: dict[str, int] = {}
        for number, choice in self.choices.items():
            place = reference.places[number]
            other = reference.choices[number].to(choice.device)
            found[place] = found.get(place, 0) + int((choice != other).sum())
        return found

    def expected_flips(self, reference: Switches) -> float | None:
        """Returns how many units should have gone another way, from the errors of what they were given.

        A unit flips if its input lies within its error of zero: of n units whose inputs have the density p at zero that is
        ``n · p · E|error|``. Density and error are those of the units near zero among some thousand of each call: what
        rounds the input itself is smaller there than elsewhere.

        Args:
            reference: as of `flips`.

        Returns:
            None if there are pooling windows, or units with another kink than at zero.
        """
        if self.inputs.keys() != self.choices.keys() or self.inputs.keys() != reference.inputs.keys():
            return None
        expected = 0.0
        for number, ours in self.inputs.items():
            theirs = reference.inputs[number].to(ours.device)
            if theirs.shape != ours.shape:
                return None
            near = _NEAR_ZERO * theirs.square().mean().sqrt()
            there = (theirs.abs() < near) & (theirs != 0)  # zeros that a padding left do not move
            if there.any():  # the density times the mean error: the sum of the errors over the window and over all
                moved = (ours - theirs)[there].abs().sum()
                expected += float(moved / (2 * near * len(theirs))) * self.choices[number].numel()
        return expected


def some_of(x: Tensor) -> Tensor:
    """Returns a few thousand numbers of an activation, the same ones in every dtype; float64."""
    flat = x.detach().flatten()
    return flat[:: max(1, flat.numel() // _SOME)].to(torch.float64, copy=True)  # the unit may write over it


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


class _Mode(TorchFunctionMode):
    def __init__(self, owner: Switches) -> None:
        super().__init__()
        self._owner = owner

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        handler = _HANDLERS.get(func)
        if handler is not None:
            kwargs = dict(kwargs or {})
            if not args:
                args = (kwargs.pop("input"),)
            return handler(self._owner, func, *args, **kwargs)
        out = func(*args, **(kwargs or {}))
        self._owner.look_for_cast(args, out)
        return out


def _relu(owner: Switches, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if not owner.frozen:
        some = some_of(x)
        out: Tensor = func(x, *args, **kwargs)
        owner.passed(lambda: out.detach() > 0, some=some)
        return out
    mask = owner.passed(lambda: x, x.shape)
    assert mask is not None
    in_place = func in _IN_PLACE or kwargs.get("inplace", bool(args and args[0]))
    closed = ~mask.to(x.device)
    return x.masked_fill_(closed, 0) if in_place else x.masked_fill(closed, 0)


def _leaky_relu(owner: Switches, func: Any, x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    if not owner.frozen:
        open_, some = x.detach() > 0, some_of(x)
        owner.passed(lambda: open_, some=some)
        out: Tensor = func(x, negative_slope, inplace) if func is F.leaky_relu else func(x, negative_slope)
        return out
    mask = owner.passed(lambda: x, x.shape)
    assert mask is not None
    factor = torch.where(mask.to(x.device), 1.0, negative_slope).to(x.dtype)
    return x.mul_(factor) if inplace or func in _IN_PLACE else x * factor


def _prelu(owner: Switches, func: Any, x: Tensor, weight: Tensor) -> Tensor:
    if not owner.frozen:
        owner.passed(lambda: x.detach() > 0, some=some_of(x))
        out: Tensor = func(x, weight)
        return out
    mask = owner.passed(lambda: x, x.shape)
    assert mask is not None
    slope = weight.view(-1, *[1] * (x.dim() - 2)) if weight.numel() > 1 else weight
    return torch.where(mask.to(x.device), x, x * slope)


def _hardtanh(
    owner: Switches, func: Any, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    if not owner.frozen:
        region = (x.detach() > min_val).to(torch.int8) + (x.detach() >= max_val).to(torch.int8)
        owner.passed(lambda: region)
        out: Tensor = func(x, min_val, max_val, inplace) if func is F.hardtanh else func(x, min_val, max_val)
        return out
    region_ = owner.passed(lambda: x, x.shape)
    assert region_ is not None
    region_ = region_.to(x.device)
    if inplace or func in _IN_PLACE:
        return x.masked_fill_(region_ == 0, min_val).masked_fill_(region_ == 2, max_val)
    return x.masked_fill(region_ == 0, min_val).masked_fill(region_ == 2, max_val)


def _relu6(owner: Switches, func: Any, x: Tensor, inplace: bool = False) -> Tensor:
    return _hardtanh(owner, F.hardtanh, x, 0.0, 6.0, inplace)


def _max_pool(owner: Switches, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    dimensions, plain = _POOLS[func]
    wanted = kwargs.pop("return_indices", False) or func is not plain
    if not owner.frozen:
        out, indices = plain(x, *args, **kwargs, return_indices=True)
        owner.passed(lambda: indices)
        return (out, indices) if wanted else out
    imposed = owner.passed(lambda: x)
    assert imposed is not None
    imposed = imposed.to(x.device)
    out = x.flatten(-dimensions).gather(-1, imposed.flatten(-dimensions)).view(imposed.shape)
    return (out, imposed) if wanted else out


# By the function that is called: over how many dimensions a window lies, and the function that can tell the largest's place.
_POOLS: Mapping[Any, tuple[int, Any]] = {
    F.max_pool1d: (1, F.max_pool1d), F.max_pool2d: (2, F.max_pool2d), F.max_pool3d: (3, F.max_pool3d),
    F.max_pool1d_with_indices: (1, F.max_pool1d), F.max_pool2d_with_indices: (2, F.max_pool2d),
    F.max_pool3d_with_indices: (3, F.max_pool3d),
    F.adaptive_max_pool1d: (1, F.adaptive_max_pool1d), F.adaptive_max_pool2d: (2, F.adaptive_max_pool2d),
    F.adaptive_max_pool3d: (3, F.adaptive_max_pool3d),
    F.adaptive_max_pool1d_with_indices: (1, F.adaptive_max_pool1d),
    F.adaptive_max_pool2d_with_indices: (2, F.adaptive_max_pool2d),
    F.adaptive_max_pool3d_with_indices: (3, F.adaptive_max_pool3d),
}  # fmt: skip
_IN_PLACE = frozenset((torch.relu_, Tensor.relu_, F.leaky_relu_, F.hardtanh_))
_HANDLERS: Mapping[Any, Callable[..., Any]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_), _relu),
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), _leaky_relu),
    **dict.fromkeys((F.prelu, torch.prelu, Tensor.prelu), _prelu),
    **dict.fromkeys((F.hardtanh, F.hardtanh_), _hardtanh),
    F.relu6: _relu6,
    **dict.fromkeys(_POOLS, _max_pool),
}
