"""The error of a gradient number by number: what a norm of the whole does not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Components:
    """Summarises the errors of those numbers of a gradient whose reference is not zero.

    Attributes:
        median, q99: of ``|found - reference|`` in units of the power of two below ``|reference|``; over the arithmetic's
            epsilon these are units in the last place.
        wrong_sign_share: of those that have the other sign, or are zero.
    """

    median: float
    q99: float
    wrong_sign_share: float


def compare_components(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Components | None:
    """Compare two gradients, by the names of the parameters; None if the reference is zero everywhere."""
    truth = torch.cat([g.double().flatten() for g in reference.values()])
    other = torch.cat([found[name].double().flatten().to(truth.device) for name in reference])
    known = truth != 0
    truth, other = truth[known], other[known]
    if not truth.numel():
        return None
    _, exponents = torch.frexp(truth)  # a mantissa in [0.5, 1)
    errors = ((other - truth).abs() * torch.exp2((1 - exponents).double())).sort().values
    last = len(errors) - 1
    return Components(
        median=errors[last // 2].item(),
        q99=errors[round(0.99 * last)].item(),
        wrong_sign_share=(other.sign() != truth.sign()).double().mean().item(),
    )
