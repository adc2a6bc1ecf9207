"""Angles and errors of vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def angle_degrees(u: Tensor, v: Tensor) -> float:
    """Returns the angle between two vectors, in degrees, exact near 0 and near 180.

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
    """Returns ``|found - reference| / |reference|`` in the Euclidean norm, in float64; NaN if the reference is zero."""
    found, reference = found.detach().double().flatten(), reference.detach().double().flatten()
    norm = torch.linalg.vector_norm(reference).item()
    return torch.linalg.vector_norm(found - reference).item() / norm if norm > 0 else math.nan
