"""How much a function can grow an error.

A function's local Lipschitz constant is the largest singular value of its Jacobian J; an error of no particular direction
grows by the root mean square of the singular values instead, ``|J|_F / sqrt(n)``. Both come from Jacobian-vector
products: the first by power iteration on J^T J (Golub and Van Loan 2013, section 8.2), the second as the mean of
``|J v|^2 / |v|^2`` over random v (Hutchinson 1990).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from revbench.numerics.passes import seed_generators

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stretch:
    """Says how one function stretches errors at one point.

    Attributes:
        lipschitz: estimate of the largest singular value of the Jacobian, from below.
        gain: root mean square of ``|J v| / |v|`` over random v.
    """

    lipschitz: float
    gain: float


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
def by_definition(block: nn.Module) -> Iterator[None]:
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
