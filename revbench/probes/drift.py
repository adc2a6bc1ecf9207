"""How far the gradient of a case is from the one that exact arithmetic would give, and why."""

from __future__ import annotations

from revbench.backprop import Certificate
from revbench.numerics.drift_record import DriftRecord
from revbench.numerics.gradients import GradientDrift, compare_gradients
from revbench.probes.declared.exactness import DRAWS
from revbench.probes.measurement import Measurement, Progress
from revbench.workload import Workload, build_workload

NOISE_BATCHES = 3  # at the same weights, by whose gradients the noise of one is measured


def measure_drift(workload: Workload, *, progress: Progress, draws: int = DRAWS, first_draw: int = 0) -> Measurement:
    """Compare a case's gradient, and that of `stored` in the same arithmetic, with that of `stored` in float64.

    The weights and batches are those of the case, rounded to its dtype. The gradient is that of the loss alone, before
    weight decay. Every draw has its own weights and batch. See `revbench.numerics.gradients.compare_gradients`.

    Args:
        workload: the case; its own weights are drawn anew for each draw.
        progress: told of each draw.
        draws: of weights and batch. Fewer than 30 give no reliable quantiles; the row says how many.
        first_draw: number of the first one, so that another launch can add others.

    Returns:
        Metrics (medians over draws, each with ``_q05``, ``_q95`` and an interval of the median, ``_low`` to ``_high``):
        ``angle_degrees``, ``relative_error``, ``error_epsilons``; the same of `stored` as ``stored_angle_degrees``,
        ``stored_relative_error``; ``amplification``, their ratio draw by draw; ``smooth_relative_error``,
        ``smooth_error_epsilons``, ``smooth_stored_relative_error``, ``smooth_amplification``; ``flips``, ``stored_flips``
        (of ``units``); ``activation_error`` (RMS, relative, of the worst block), ``activation_error_epsilons``,
        ``activation_largest_error``. Also ``draws``, ``loss_scale``, ``worst_tensor`` with its angle in any draw, ``trace``,
        ``verdict``, ``verdict_head``, ``verdict_words``; of a certified case ``compared_activations``,
        ``identical_activations`` (over all draws) and ``certificate``, that of the last draw in words. What can't be had is
        None with its reason. Samples of all. Series: a line for each block and tensor.

    Raises:
        FloatingPointError: loss or gradient is not finite; the message says where this began.
    """
    case = workload.case
    found: list[GradientDrift] = []
    for draw in range(first_draw, first_draw + draws):
        ours = build_workload(case.replace(seed=case.seed + draw))
        inputs, targets = ours.batch()
        drift = compare_gradients(
            ours.model, ours.loss, inputs, targets, autocast=case.autocast, seed=draw, follow_switches=not case.compile,
            other_batches=[ours.batch(number) for number in range(1, NOISE_BATCHES)], **workload.own_way,
        )  # fmt: skip
        found.append(drift)
        progress({"done": len(found), "of": draws, "angle_degrees": drift.whole.angle_degrees})
    record = DriftRecord(found, case.arithmetic, case.strategy)
    metrics = record.metrics()
    if case.certify:
        certificates: list[Certificate] = [certificate for drift in found for certificate in drift.certificates]
        metrics["compared_activations"] = sum(certificate.compared for certificate in certificates)
        metrics["identical_activations"] = sum(certificate.identical for certificate in certificates)
        metrics["certificate"] = str(certificates[-1]) if certificates else None
    return Measurement(metrics, record.samples(), record.parts().columns)
