"""How far the gradient of a case is from the one that exact arithmetic would give."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from revbench.backprop import Certificate, StrategyModule
from revbench.probes.found import Found, Metric, Progress
from revbench.workload import Workload, build_workload


def angle_degrees(u: Tensor, v: Tensor) -> float:
    """The angle between two vectors, in degrees, exact near 0 and near 180.

    ``2 atan2(|u' - v'|, |u' + v'|)`` of the unit vectors u', v' in float64 (Kahan 2006, "How Futile are Mindless
    Assessments of Roundoff", section 12). The arc cosine of the inner product would round every angle under
    1e-6 degrees to 0.

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


def measure_drift(workload: Workload, *, progress: Progress, draws: int = 5, first_draw: int = 0) -> Found:
    """Compare a case's gradient with that of `stored` in float64, with the same weights and batch.

    The weights and batches are those of the case, rounded to its dtype: the reference computes with the
    rounded values, so that the angle shows the arithmetic of the step and not the rounding of its
    inputs. The gradient is that of the loss alone, before weight decay. Every draw has its own weights
    and batch.

    Args:
        workload: the case; its own weights are drawn anew for each draw.
        progress: told of each draw.
        draws: of weights and batch. Fewer than 30 give no reliable quantiles; the row says how many.
        first_draw: number of the first one, so that another launch can add others.

    Returns:
        Metrics ``angle_degrees`` and ``relative_error`` (medians), each with ``_q05`` and ``_q95``;
        ``worst_tensor_angle_degrees`` (the largest of any parameter tensor with more than one element, in any draw)
        and ``worst_tensor``; ``draws``; of a certified case also ``compared_activations``,
        ``identical_activations`` (both over all draws) and ``certificate``, that of the last draw in words.
        Samples for the medians.
    """
    case = workload.case
    angles: list[float] = []
    errors: list[float] = []
    worst, worst_name = 0.0, None
    certificates: list[Certificate] = []
    for draw in range(first_draw, first_draw + draws):
        ours = build_workload(case.replace(seed=case.seed + draw))
        reference_case = case.stored().replace(seed=case.seed + draw, dtype="float64", autocast="none", compile=False)
        exact = build_workload(reference_case)
        exact.model.load_state_dict(ours.model.state_dict())
        batch = ours.batch()
        torch.manual_seed(draw)  # the same dropout masks, on the CPU; a GPU's may depend on the dtype
        reference = exact.gradient(*(exact.place(part) for part in batch))
        torch.manual_seed(draw)
        gradient = ours.gradient(*batch)
        angles.append(angle_degrees(_vector(gradient), _vector(reference)))
        errors.append(relative_error(_vector(gradient), _vector(reference)))
        for name, tensor in gradient.items():
            if tensor.numel() > 1:
                angle = angle_degrees(tensor, reference[name])
                if not angle <= worst and not math.isnan(worst):  # NaN is the worst of all
                    worst, worst_name = angle, name
        certificates += [
            m.certificate for m in ours.model.modules() if isinstance(m, StrategyModule) and m.certificate is not None
        ]
        progress({"done": len(angles), "of": draws, "angle_degrees": angles[-1]})
    metrics: dict[str, Metric] = {"draws": draws, "worst_tensor_angle_degrees": worst, "worst_tensor": worst_name}
    if case.certify:
        metrics["compared_activations"] = sum(found.compared for found in certificates)
        metrics["identical_activations"] = sum(found.identical for found in certificates)
        metrics["certificate"] = str(certificates[-1]) if certificates else None
    samples = {"angle_degrees": angles, "relative_error": errors}
    for name, values in samples.items():
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
        metrics |= {name: float(middle), f"{name}_q05": float(low), f"{name}_q95": float(high)}
    return Found(metrics, samples)


def _vector(gradient: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in gradient.values()])
