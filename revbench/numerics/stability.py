"""How stable the inverse of each reversible block is, and the reconstruction error that this predicts.

On the way back an error of what leaves a half step becomes one of what entered it: by the derivative of the half step's inverse,
to first order, and rounding adds its own at each. So vectors of errors are drawn as rounding makes them and pushed backwards,
half step by half step, through the inverse's Jacobian at the stored activations: what adds up and what cancels follows,
as of couplings whose errors follow each other. The worst case follows from the largest singular values instead. That
reconstruction is as stable as the inverse is Lipschitz is the argument of Behrmann et al. 2021 (arXiv 2006.09347, section 3).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn

from revbench.backprop import ReversibleBlock
from revbench.backprop.coupling import HalfStep
from revbench.backprop.rules import Affine, is_linear
from revbench.case import is_gpu
from revbench.numerics.lipschitz import Stretch, by_definition, stretch
from revbench.numerics.passes import autocast_to, device_of, dropout_in_float32, random_states_kept, seed_generators
from revbench.observing.calling import call
from revbench.observing.nested import map_tensors

State = tuple[Tensor, ...]

# Root mean square of the relative error of rounding to nearest, in epsilons: the error is uniform in half a unit in the
# last place either way, and leading digits are logarithmically distributed (Knuth, TAOCP 2, section 4.2.4):
# sqrt((1 / 12) / E[m^2]) with E[m^2] = 3 / (2 ln 2) for mantissas m in [1, 2).
ROUNDING = math.sqrt(math.log(2) / 18)
_DRAWS = 2  # of error vectors, each of as many numbers as the activations have


@dataclass(frozen=True)
class BlockStability:
    """Says how stable one block is, at the activations of one batch.

    Attributes:
        functions: the stretch of each.
        inverse: of the map from the streams that leave to those that entered.
        inverse_condition: of the inverse in the relative sense, ``|J^-1| |y| / |x|`` with the largest singular value: how many
            times a relative error of what leaves the block may grow into one of what entered it.
        predicted_error: of the activations that the block's half steps bring back, relative, RMS; None of a block that brings
            none back: the first half step of a chain has nothing before it that is needed.
        bounded_error: the same if every error took the direction that grows most.
    """

    functions: tuple[Stretch, ...]
    inverse: Stretch
    inverse_condition: float
    predicted_error: float | None
    bounded_error: float | None


class _Called(NamedTuple):
    """A block as the model called it: its name, what entered, how its functions were called, what left."""

    name: str
    block: ReversibleBlock
    entered: State
    given: dict[str, Any]
    left: State

    def half_steps(self, block: ReversibleBlock) -> list[HalfStep]:
        """Returns those of a copy of the block, as the model called it."""
        return block.half_steps(starts=bool(self.given.get("starts")))


def block_stabilities(model: nn.Module, inputs: Any, *, autocast: str, epsilon: float) -> dict[str, BlockStability]:
    """Returns the stability of every reversible block of a model, by name, in the order of the network.

    Args:
        model: in training mode, on its device and in its dtype, under `stored`. It is not changed: what runs are copies.
        inputs: a batch, in the model's dtype.
        autocast: ``none``, ``bfloat16`` or ``float16``: that of the evaluation of the functions.
        epsilon: of the streams, to which a half step and its inverse round.

    Raises:
        NotImplementedError: no block of `revbench.reversible` inside.
    """
    device = device_of(model)
    with random_states_kept(), dropout_in_float32() if is_gpu(device) else nullcontext():
        model = copy.deepcopy(model)
        names = {m: name for name, m in model.named_modules() if isinstance(m, ReversibleBlock)}
        calls: list[_Called] = []

        def keep(block: nn.Module, entered: State, given: dict[str, Any], left: State) -> None:
            assert isinstance(block, ReversibleBlock)
            calls.append(_Called(names[block], block, entered, given, left))

        handles = [block.register_forward_hook(keep, with_kwargs=True) for block in names]
        with torch.no_grad(), autocast_to(autocast, device):
            call(model, inputs)
        for handle in handles:
            handle.remove()
        if not calls:
            raise NotImplementedError(
                f"{type(model).__name__} has no reversible block inside: there is nothing to invert"
            )
        found: dict[str, BlockStability] = {}
        for chain in _chains(calls):
            way = _WayBack(chain[-1].left, autocast, epsilon)
            for i, called in reversed(list(enumerate(chain))):
                before = sum(len(earlier.half_steps(earlier.block)) for earlier in chain[:i])
                found[called.name] = way.block(called, before)
    return {called.name: found[called.name] for called in calls}


def _chains(calls: Sequence[_Called]) -> Iterator[list[_Called]]:
    """Yields the blocks that feed each other."""
    chain: list[_Called] = []
    for called in calls:
        if chain and not all(a is b for a, b in zip(called.entered, chain[-1].left, strict=False)):
            yield chain
            chain = []
        chain.append(called)
    yield chain


class _Point:
    """A half step at the activations of the batch.

    Args:
        called: the block that it is of.
        index: of it within the block.
        state: the streams before it.
        autocast: of the evaluation of its function.

    Attributes:
        rule: of it.
        has_function: whether its function is one of the block's own.
        function: that, with its arguments, in at least float32.
        b, a, out: the streams before it and what b becomes, likewise.
        after: the streams after it, in their own dtype.
    """

    def __init__(self, called: _Called, index: int, state: State, autocast: str) -> None:
        self._called, self._index, self._autocast = called, index, autocast
        b, *a = state
        self._dtype = b.dtype
        wide = torch.promote_types(b.dtype, torch.float32)
        step = called.half_steps(called.block)[index]
        self.rule, self.has_function = step.rule, step.argument is not None
        self.function, self._own = self._in(wide), self._in(None)
        with torch.no_grad(), autocast_to(autocast, b.device.type):
            out = step.rule.forward(b, a, self._own(*a))
        self.after = (*a, out)
        self.b, self.a, self.out = b.to(wide), tuple(x.to(wide) for x in a), out.to(wide)

    def _in(self, *dtypes: torch.dtype | None) -> Callable[..., Tensor]:
        """Returns its function with its arguments, rounded to these dtypes, one after the other; the same random numbers are
        drawn at each call."""
        block, given = self._called.block, self._called.given.get("arguments", ())
        for dtype in dtypes:
            if dtype is not None:
                block = copy.deepcopy(block).to(dtype)
        step = self._called.half_steps(block)[self._index]
        args, kwargs = given[step.argument] if given and step.argument is not None else ((), {})

        def rounded(tensor: Tensor) -> Tensor:
            for dtype in dtypes:
                tensor = tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
            return tensor

        args, kwargs = map_tensors(rounded, args), map_tensors(rounded, dict(kwargs))

        def function(*a: Tensor) -> Tensor:
            seed_generators(0)
            value: Tensor = step.function(*a, *args, **kwargs)
            return value

        return function

    @torch.no_grad()
    def evaluation_error(self) -> Tensor:
        """Returns what one evaluation of the function in the model's arithmetic is off, of each number of its value.

        Of float64, which nothing here is more exact than, float32's on the same point, scaled by the ratio of the epsilons.
        """
        if not self.has_function:
            return torch.zeros_like(self.out)
        own, exact, a, scale = self._own, self._in(torch.float64), [x.to(self._dtype) for x in self.a], 1.0
        if self._dtype == torch.float64:
            own, exact = self._in(torch.float32), self._in(torch.float32, torch.float64)
            a = [x.float() for x in a]
            scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
        with autocast_to(self._autocast, a[0].device.type):
            value = own(*a)
        return ((value.double() - exact(*(x.double() for x in a))) * scale).to(self.out.dtype)

    def stretch(self) -> Stretch:
        """Returns that of its function, of all that it is given."""
        return stretch(lambda x: self.function(*_unpacked(x, self.a)), _packed(self.a))

    def push(self, of_out: Tensor, of_a: Sequence[Tensor], of_value: Tensor) -> Tensor:
        """Returns the error of b, to first order, that errors of out, a and the function's value bring about."""
        with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of how it differentiates some functions
            a = [forward_ad.make_dual(x, e) for x, e in zip(self.a, of_a, strict=True)]
            value, grown = forward_ad.unpack_dual(self.function(*a))
            grown = of_value if grown is None else grown + of_value
            b = self.rule.inverse(forward_ad.make_dual(self.out, of_out), a, forward_ad.make_dual(value, grown))
            brought: Tensor = forward_ad.unpack_dual(b).tangent.detach()
            return brought

    def steepness(self, of_function: Stretch) -> tuple[float, float]:
        """Returns by how much the inverse grows an error of out, and one of a, in the worst direction."""
        if is_linear(self.rule):
            keep = abs(self.rule.keep)
            return 1 / keep, (abs(self.rule.scale) * of_function.lipschitz + abs(self.rule.take)) / keep
        with torch.no_grad():
            value = self.function(*self.a)
        by_out = stretch(lambda out: self.rule.inverse(out, self.a, value), self.out)

        def of(packed: Tensor) -> Tensor:
            a = _unpacked(packed, self.a)
            return self.rule.inverse(self.out, a, self.function(*a))

        return by_out.lipschitz, stretch(of, _packed(self.a)).lipschitz

    @torch.no_grad()
    def roundings(self) -> tuple[Tensor, Tensor]:
        """Returns of which size the numbers are that are rounded: in forward on the way to out, on the way back to b."""
        if is_linear(self.rule) and self.rule.only_adds:
            return self.out, self.b
        # Products and sums before the last: of out as it would be without the function's value, of b before the division.
        value = self.function(*self.a)
        if isinstance(self.rule, Affine):
            between = self.b * self.rule.parts(value, self.b.dtype)[0]
        else:
            between = self.rule.forward(self.b, self.a, torch.zeros_like(value))
        return torch.hypot(self.out, between), math.sqrt(2) * self.b


def _packed(a: Sequence[Tensor]) -> Tensor:
    return a[0] if len(a) == 1 else torch.cat([x.flatten() for x in a])


def _unpacked(packed: Tensor, a: Sequence[Tensor]) -> Sequence[Tensor]:
    if len(a) == 1:
        return [packed]
    return [part.view(x.shape) for part, x in zip(packed.split([x.numel() for x in a]), a, strict=True)]


class _WayBack:
    """The way back through one chain: the errors of its streams.

    Args:
        left: the streams that leave it, which nothing is off of.
        autocast: of the evaluation of the functions.
        epsilon: of the streams.
    """

    def __init__(self, left: State, autocast: str, epsilon: float) -> None:
        self._autocast, self._unit = autocast, ROUNDING * epsilon
        dtype = torch.promote_types(left[0].dtype, torch.float32)
        self._errors: list[State] = [tuple(torch.zeros_like(y, dtype=dtype) for y in left) for _ in range(_DRAWS)]
        self._bounds: tuple[float, ...] = (0.0,) * len(left)
        self._generator = torch.Generator().manual_seed(0)

    def block(self, called: _Called, before: int) -> BlockStability:
        """Returns the stability of the block that is next on the way back.

        Args:
            called: the block.
            before: half steps of the chain before it.
        """
        points: list[_Point] = []
        state = called.entered
        for i in range(len(called.half_steps(called.block))):
            points.append(_Point(called, i, state, self._autocast))
            state = points[-1].after
        with by_definition(called.block):
            stretches = [point.stretch() if point.has_function else Stretch(1.0, 1.0) for point in points]
            inverse = stretch(lambda y: torch.stack(_inverse(points, tuple(y))), torch.stack(_wide(called.left)))
            predicted = bounded = size = 0.0
            for i, (point, of_function) in reversed(list(enumerate(zip(points, stretches, strict=True)))):
                kept = called.block.coupling.keeps_first and 1 <= before + i < len(called.entered)
                self._half_step(point, of_function, kept=kept)
                if before + i == 0:
                    continue
                predicted = math.hypot(predicted, *(_norm(errors[0]) / math.sqrt(_DRAWS) for errors in self._errors))
                bounded, size = math.hypot(bounded, self._bounds[0]), math.hypot(size, _norm(point.b))
        functions = tuple(s for s, point in zip(stretches, points, strict=True) if point.has_function)
        condition = inverse.lipschitz * _norm(*called.left) / _norm(*called.entered)
        errors = (predicted / size, bounded / size) if size > 0 else (None, None)
        return BlockStability(functions, inverse, condition, *errors)

    def _half_step(self, point: _Point, of_function: Stretch, *, kept: bool) -> None:
        if kept:
            self._errors = [(torch.zeros_like(point.b), *errors[:-1]) for errors in self._errors]
            self._bounds = (0.0, *self._bounds[:-1])
            return
        exact = not any(self._bounds[:-1])  # the second evaluation, at the same point, is off by the same
        # Twice what one evaluation is off, as variances add.
        off = torch.zeros_like(point.out) if exact else math.sqrt(2) * point.evaluation_error()
        of_out, of_b = (self._unit * size for size in point.roundings())
        if exact and off.shape != (shape := point.rule.shape_of_value(point.out.shape)):
            off = point.out.new_zeros(shape)
        errors: list[State] = []
        for *of_a, before in self._errors:
            brought = point.push(before + self._noise(of_out), of_a, self._noise(off))
            errors.append((brought + self._noise(of_b), *of_a))
        self._errors = errors
        by_out, by_a = point.steepness(of_function)
        fresh = math.hypot(by_out * _norm(of_out), _norm(of_b), by_out * _norm(off))
        *bounds, bound = self._bounds
        self._bounds = (by_out * bound + by_a * math.hypot(*bounds) + fresh, *bounds)

    def _noise(self, size: Tensor) -> Tensor:
        return torch.randn(size.shape, generator=self._generator, dtype=torch.float64).to(size) * size


def _inverse(points: Sequence[_Point], state: State) -> State:
    """Computes `ReversibleBlock.inverse`, but differentiable."""
    for point in reversed(points):
        *a, out = state
        state = (point.rule.inverse(out, a, point.function(*a)), *a)
    return state


def _wide(state: State) -> State:
    return tuple(y.to(torch.promote_types(y.dtype, torch.float32)) for y in state)


def _norm(*streams: Tensor) -> float:
    return math.hypot(*(float(torch.linalg.vector_norm(x.detach().double())) for x in streams))
