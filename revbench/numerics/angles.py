"""Angles and errors of vectors, and the unit that rounding is counted in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from revbench.case import Case

TF32_EPSILON = 2.0**-10  # 10 bits of mantissa are stored (NVIDIA, "A100 Tensor Core GPU Architecture", 2020)


def angle_degrees(u: Tensor, v: Tensor) -> float:
    """The angle between two vectors, in degrees, exact near 0 and near 180.

    ``2 atan2(|u' - v'|, |u' + v'|)`` of the unit vectors u', v' in float64 (Kahan 2006, "How Futile are Mindless
    Assessments of Roundoff", section 12). The arc cosine of the inner product would round every angle under
    1e-6 degrees to 0. What remains is the rounding of u' and v': angles under about 1e-14 degrees are noise.

    Args:
        u, v: tensors of as many elements, of any shape and dtype.

    Returns:
        The angle in [0, 180]; NaN if either is zero or not finite.
    """
    u, v = u.detach().double().flatten(), v.detach().double().flatten()
    nu, nv = torch.linalg.vector_norm(u), torch.linalg.vector_norm(v)
    if not (nu > 0 and nv > 0 and torch.isfinite(nu) and torch.isfinite(nv)):
        return math.nan
    u, v = u / nu, v / nv
    difference, total = torch.linalg.vector_norm(u - v), torch.linalg.vector_norm(u + v)
    return math.degrees(2.0 * math.atan2(difference.item(), total.item()))


def relative_error(found: Tensor, reference: Tensor) -> float:
    """``|found - reference| / |reference|`` in the Euclidean norm, in float64; NaN if the reference is zero."""
    found, reference = found.detach().double().flatten(), reference.detach().double().flatten()
    norm = torch.linalg.vector_norm(reference).item()
    return torch.linalg.vector_norm(found - reference).item() / norm if norm > 0 else math.nan


def epsilon_of(case: Case) -> float:
    """The distance from 1 to the next number in the coarsest arithmetic of a case.

    Autocast's where there is one (products and convolutions round to it), TF32's where it is on, else the dtype's.
    Twice the unit roundoff u of Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 2.1.
    """
    if case.autocast != "none":
        return float(torch.finfo(getattr(torch, case.autocast)).eps)
    if case.dtype == "float32" and (case.tf32_matmul or case.tf32_convolution):
        return TF32_EPSILON
    return float(torch.finfo(getattr(torch, case.dtype)).eps)
