"""How much F, G and the inverse of each block can grow an error, and the reconstruction error that this predicts.

A function's local Lipschitz constant is the largest singular value of its Jacobian J; an error of no particular direction
grows by the root mean square of the singular values instead, ``|J|_F / sqrt(n)``. Both come from Jacobian-vector
products: the first by power iteration on J^T J (Golub and Van Loan 2013, section 8.2), the second as the mean of
``|J v|^2 / |v|^2`` over random v (Hutchinson 1990). That reconstruction is as stable as the inverse is Lipschitz is
the argument of Behrmann et al. 2021 (arXiv 2006.09347, section 3).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from revbench.backprop import ReversibleBlock
from revbench.case import is_gpu
from revbench.numerics.passes import autocast_to, device_of, dropout_in_float32, random_states_kept, seed_generators
from revbench.observing.calling import call

Function = Callable[[Tensor], Tensor]

# Root mean square of the relative error of rounding to nearest, in epsilons: the error is uniform in half a unit in the
# last place either way, and leading digits are logarithmically distributed (Knuth, TAOCP 2, section 4.2.4):
# sqrt((1 / 12) / E[m^2]) with E[m^2] = 3 / (2 ln 2) for mantissas m in [1, 2).
ROUNDING = math.sqrt(math.log(2) / 18)


@dataclass(frozen=True)
class Stretch:
    """Says how one function stretches errors at one point.

    Attributes:
        lipschitz: estimate of the largest singular value of the Jacobian, from below.
        gain: root mean square of ``|J v| / |v|`` over random v.
    """

    lipschitz: float
    gain: float


@dataclass(frozen=True)
class BlockStability:
    """Says how stable one block is, at the activations of one batch.

    Attributes:
        f, g, inverse: their stretches; `inverse` of the map from (y1, y2) to (x1, x2).
        inverse_condition: of the inverse in the relative sense, ``|J^-1| |y| / |x|`` with the largest singular value: how many
            times a relative error of what leaves the block may grow into one of what entered it.
        predicted_error: of the reconstructed activations that enter the block, relative, RMS: every source independent and
            of no particular direction.
        bounded_error: the same if every error took the direction that grows most.
    """

    f: Stretch
    g: Stretch
    inverse: Stretch
    inverse_condition: float
    predicted_error: float
    bounded_error: float


def stretch(function: Function, x: Tensor, *, iterations: int = 20, tolerance: float = 0.01) -> Stretch:
    """Returns the stretch of a function at a point.

    Args:
        function: differentiable, of one tensor; called with the same random numbers each time.
        x: the point, floating point.
        iterations: of the power iteration at most; it ends when the estimate changes by less than `tolerance`, relative.

    Returns:
        Zero of a function that is constant here. Gains are over two random vectors.
    """
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        v = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        unit: Tensor = v / torch.linalg.vector_norm(v)
        return unit

    gains = []
    v = draw()
    found = 0.0
    for iteration in range(iterations):
        image = _push(function, x, v)
        norm = torch.linalg.vector_norm(image).item()
        if iteration == 0:
            other = torch.linalg.vector_norm(_push(function, x, draw())).item()
            gains = [norm, other]
        if norm == 0 or abs(norm - found) <= tolerance * norm:
            found = max(found, norm)
            break
        found = norm
        back = _pull(function, x, image / norm)
        v = back / torch.linalg.vector_norm(back)
    return Stretch(found, math.sqrt(sum(gain**2 for gain in gains) / len(gains)))


def _push(function: Function, x: Tensor, v: Tensor) -> Tensor:
    """Returns ``J v``."""
    with torch.no_grad(), forward_ad.dual_level(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of how it differentiates some functions
        seed_generators(0)
        image = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent
    return torch.zeros_like(x) if image is None else image.detach()


@contextmanager
def _by_definition(block: nn.Module) -> Iterator[None]:
    """Inside, attention and recurrent layers run by their definition: fused kernels have no forward derivatives."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in block.modules()):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of settings that these contexts set to what they are
                stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
                stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


def _pull(function: Function, x: Tensor, u: Tensor) -> Tensor:
    """Returns ``J^T u``."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        seed_generators(0)
        (found,) = torch.autograd.grad(function(leaf), leaf, u)
    return found


def block_stabilities(model: nn.Module, inputs: Any, *, autocast: str, epsilon: float) -> dict[str, BlockStability]:
    """Returns the stability of every reversible block of a model, by name, in the order of the network.

    Args:
        model: in training mode, on its device and in its dtype, under `stored`. It is not changed: what runs are copies.
        inputs: a batch, in the model's dtype.
        autocast: ``none``, ``bfloat16`` or ``float16``: that of the evaluation of F and G.
        epsilon: of the stream, to which a half step's addition and subtraction round.

    Raises:
        NotImplementedError: no block of `revbench.reversible` inside.
    """
    device = device_of(model)
    with random_states_kept(), dropout_in_float32() if is_gpu(device) else nullcontext():
        model = copy.deepcopy(model)
        names = {m: name for name, m in model.named_modules() if isinstance(m, ReversibleBlock)}
        calls: list[tuple[ReversibleBlock, tuple[Tensor, ...], tuple[Tensor, ...]]] = []

        def keep(block: nn.Module, entered: Any, left: Any) -> None:
            assert isinstance(block, ReversibleBlock)
            calls.append((block, entered, left))

        handles = [block.register_forward_hook(keep) for block in names]
        with torch.no_grad(), autocast_to(autocast, device):
            call(model, inputs)
        for handle in handles:
            handle.remove()
        if not calls:
            raise NotImplementedError(
                f"{type(model).__name__} has no reversible block inside: there is nothing to invert"
            )
        found: dict[str, BlockStability] = {}
        errors = bounds = (0.0, 0.0)  # of y1 and y2
        following: tuple[Tensor, ...] = ()
        for block, entered, left in reversed(calls):
            if not (following and all(a is b for a, b in zip(following, left, strict=True))):
                errors = bounds = (0.0, 0.0)
            following = entered
            found[names[block]], errors, bounds = _stability(
                block, entered, left, errors, bounds, autocast=autocast, epsilon=epsilon
            )
    return dict(reversed(found.items()))


Errors = tuple[float, float]


def _stability(
    block: ReversibleBlock, entered: Sequence[Tensor], left: Sequence[Tensor], errors: Errors, bounds: Errors, *,
    autocast: str, epsilon: float,
) -> tuple[BlockStability, Errors, Errors]:  # fmt: skip
    """Returns the stability of one block, and the errors (RMS over the whole tensor, absolute) of x1 and x2 from those of y1
    and y2.

    Going back by one half step, ``b = out - m(a)``: the error of ``out`` stays, that of ``a`` is stretched, m rounds
    differently at a point that differs (twice its own rounding error, as variances add), and so do the addition of
    forward and the subtraction.
    """
    (x1, x2), (y1, y2) = entered, left
    dtype = torch.promote_types(x1.dtype, torch.float32)
    wide, exact = copy.deepcopy(block).to(dtype), copy.deepcopy(block).double()
    with _by_definition(block):
        f, g = (stretch(m, a.to(dtype)) for m, a in ((wide.f, x2), (wide.g, y1)))
        inverse = stretch(lambda y: torch.stack(_inverse(wide, y[0], y[1])), torch.stack((y1, y2)).to(dtype))

    def back(
        half: Stretch, m: nn.Module, m64: nn.Module, a: Tensor, b: Tensor, out: Tensor, of_a: Errors, of_out: Errors
    ) -> Errors:
        rounded = ROUNDING * epsilon * math.hypot(_norm(b), _norm(out))
        evaluated = math.sqrt(2) * _evaluation_error(m, m64, a, autocast) if of_a[0] > 0 else 0.0
        fresh = math.hypot(rounded, evaluated)
        return math.hypot(of_out[0], half.gain * of_a[0], fresh), of_out[1] + half.lipschitz * of_a[1] + fresh

    of_y1, of_y2 = (errors[0], bounds[0]), (errors[1], bounds[1])
    of_x2 = back(g, block.g, exact.g, y1, x2, y2, of_y1, of_y2)
    of_x1 = back(f, block.f, exact.f, x2, x1, y1, of_x2, of_y1)
    norm = math.hypot(_norm(x1), _norm(x2))
    condition = inverse.lipschitz * math.hypot(_norm(y1), _norm(y2)) / norm
    stability = BlockStability(
        f, g, inverse, condition, math.hypot(of_x1[0], of_x2[0]) / norm, math.hypot(of_x1[1], of_x2[1]) / norm
    )
    return stability, (of_x1[0], of_x2[0]), (of_x1[1], of_x2[1])


def _inverse(block: ReversibleBlock, y1: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
    """Computes `ReversibleBlock.inverse`, but differentiable."""
    x2 = y2 - block.g(y1)
    return y1 - block.f(x2), x2


@torch.no_grad()
def _evaluation_error(m: nn.Module, exact: nn.Module, a: Tensor, autocast: str) -> float:
    """Returns ``|m(a) - m64(a)|``: what one evaluation in the case's arithmetic is off.

    Of float64, which nothing here is more exact than, float32's on the same point, scaled by the ratio of the epsilons.
    """
    scale = 1.0
    if a.dtype == torch.float64:
        m, a = copy.deepcopy(m).float(), a.float()
        exact = copy.deepcopy(m).double()
        scale = torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    seed_generators(0)
    with autocast_to(autocast, a.device.type):
        value = m(a)
    seed_generators(0)
    return _norm(value.double() - exact(a.double())) * scale


def _norm(x: Tensor) -> float:
    return float(torch.linalg.vector_norm(x.detach().double()))
