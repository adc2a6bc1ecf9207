"""How exact a step is: its drift, why it drifts, and whether it repeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from revbench.numerics.part_table import DRIFT_COLUMNS
from revbench.probes.declaration import Better, Metric, Probe
from revbench.probes.declared.builders import word
from revbench.units import COUNT, DEGREES, EPSILONS, FACTOR, RATIO, SHARE, ULPS, Unit

DRAWS = 6  # of weights and batch, in each launch of drift; as many as an interval of the median needs


def _drift(name: str, unit: Unit, about: str, head: str = "", better: Better = "lower") -> Metric:
    return Metric(name, unit, about, "drift", better, head, summarised=True)


def _drift_options(repeat: int) -> Mapping[str, Any]:
    return {"draws": DRAWS, "first_draw": (repeat - 1) * DRAWS}


DRIFT = Probe(
    name="drift",
    function="revbench.probes.drift:measure_drift",
    sentence="how far the gradient and the reconstructed activations are from those of exact arithmetic",
    by_default=True,
    options_of_launch=_drift_options,
    metrics=(
        _drift("angle_degrees", DEGREES, "to the gradient of stored in float64", "Angle"),
        _drift("relative_error", SHARE, "the whole error of the gradient over its norm, flips and all", "Whole error"),
        _drift("error_epsilons", EPSILONS, "the same in units of the arithmetic"),
        _drift("stored_angle_degrees", DEGREES, "of stored in the same arithmetic", "of stored"),
        _drift("stored_relative_error", SHARE, "of stored in the same arithmetic", "stored's"),
        _drift("amplification", RATIO, "the whole error over stored's, draw by draw"),
        _drift(
            "smooth_relative_error", SHARE, "with every switch frozen to what it did in the reference: rounding alone"
        ),
        _drift("smooth_error_epsilons", EPSILONS, "the same in units of the arithmetic", "Smooth error, ε"),
        _drift("smooth_stored_relative_error", SHARE, "of stored in the same arithmetic"),
        _drift("smooth_amplification", RATIO, "the smooth error over stored's, draw by draw", "to stored"),
        _drift("flips", COUNT, "ReLU units and pooling windows that went another way than in the reference", "Flips"),
        _drift("stored_flips", COUNT, "of stored in the same arithmetic"),
        _drift("expected_flips", COUNT, "from the errors of the units' inputs and their density at zero", better=None),
        _drift("expected_stored_flips", COUNT, "of stored in the same arithmetic", better=None),
        _drift("noise", SHARE, "standard deviation of the gradient over batches, at the same weights", better=None),
        _drift("error_over_noise", SHARE, "the whole error over that", "Of noise"),
        _drift("significant_digits", FACTOR, "decimal digits of the whole gradient", "Digits", "higher"),
        _drift(
            "gradient_condition",
            EPSILONS,
            "relative change of the gradient over that of the weights",
            "Condition",
            None,
        ),
        _drift(
            "backward_error_epsilons",
            EPSILONS,
            "relative change of the weights that explains the smooth error",
            "Backward, ε",
        ),
        _drift(
            "component_ulps_median",
            ULPS,
            "error of a number of the gradient, in units of its last place",
            "Ulps, median",
        ),
        _drift("component_ulps_q99", ULPS, "the same, of which 99 % have less", "99 %"),
        _drift("wrong_sign_share", SHARE, "of the numbers of the gradient, those with the other sign", "Wrong signs"),
        _drift("activation_error", SHARE, "of the reconstructed activations, RMS over their norm, of the worst block"),
        _drift("activation_error_epsilons", EPSILONS, "the same in units of the stream's arithmetic", "Activations, ε"),
        _drift("activation_largest_error", SHARE, "of any reconstructed activation, over the largest of them"),
        _drift(
            "derivative_error", SHARE, "without a stored twin: how far the gradient is from the derivative of its loss"
        ),
        Metric("draws", COUNT, "of weights and batch"),
        Metric("loss_scale", RATIO, "what the loss was multiplied with (float16 autocast)"),
        Metric("units", COUNT, "how many switches there are"),
        Metric(
            "worst_tensor_angle_degrees", DEGREES, "the largest of any parameter tensor in any draw", "drift", "lower"
        ),
        word("worst_tensor", "that tensor"),
        Metric(
            "activation_growth_per_block",
            RATIO,
            "factor by which the activations' error grows on the way back",
            "drift",
            "lower",
            "Growth",
        ),
        word("breakdown_block", "the first on the way back whose activations are off by a tenth", "Breaks down"),
        word("blocks_left_out", "invertible blocks that could not be reconstructed, with the reason"),
        word("own_functions", "functions by which a network without a stored twin back-propagates itself"),
        word("trace", "what a step leaves behind otherwise than stored does"),
        word("casts", "where the float64 reference casts to a narrower dtype"),
        word("coarse_casts", "those of them that are coarser than the arithmetic"),
        word("verdict", "safe, as stored, caution, unsafe; reference of stored itself"),
        word("verdict_head", "the same, and why"),
        word("verdict_words", "the same as sentences", "Verdict"),
        Metric("compared_activations", COUNT, "with certify, how many"),
        Metric(
            "identical_activations",
            COUNT,
            "with certify, those that were the stored ones bit for bit",
            "drift",
            "higher",
        ),
        word("certificate", "with certify, that of the last draw"),
    ),
    lines=(
        "{angle_degrees} to the float64 gradient (stored: {stored_angle_degrees}; {draws} draws); {verdict_head}",
        "{angle_degrees} to the float64 gradient ({draws} draws); {verdict_head}",
        "{angle_degrees} to the float64 gradient ({draws} draws); {verdict_words}",  # of rows that have no head yet
    ),
    series=DRIFT_COLUMNS,
)

_STRETCHES = {"f": "F", "g": "G", "inverse": "the map from a block's output to its input"}

LIPSCHITZ = Probe(
    name="lipschitz",
    function="revbench.probes.lipschitz:measure_lipschitz",
    sentence="how much each block's F, G and inverse can grow an error, and the reconstruction error that this predicts",
    metrics=(
        *(
            Metric(f"{kind}_{name}{end}", FACTOR, f"{how} of {function}, {over}", "drift", "lower")
            for name, function in _STRETCHES.items()
            for kind, end, how, over in (
                ("lipschitz", "", "local Lipschitz constant", "median over blocks"),
                ("lipschitz", "_largest", "local Lipschitz constant", "largest of any block"),
                ("gain", "", "growth of an error of no particular direction", "median over blocks"),
            )
        ),
        Metric(
            "inverse_condition",
            FACTOR,
            "how many times a relative error may grow through a block, median",
            "drift",
            "lower",
            "Condition",
        ),
        Metric("inverse_condition_largest", FACTOR, "the same, largest of any block", "drift", "lower"),
        Metric(
            "predicted_activation_error",
            SHARE,
            "of the worst block, if errors have no particular direction",
            "drift",
            "lower",
            "Predicted",
        ),
        Metric(
            "bounded_activation_error",
            SHARE,
            "of the worst block, if each takes the direction that grows most",
            "drift",
            "lower",
            "Worst case",
        ),
        Metric("blocks", COUNT, "that were looked at"),
    ),
    lines=(
        "Lipschitz constants of F {lipschitz_f}, G {lipschitz_g}, inverse {lipschitz_inverse} (medians of {blocks} blocks)",
    ),
    series=(
        "level",
        "name",
        "lipschitz_f",
        "gain_f",
        "lipschitz_g",
        "gain_g",
        "lipschitz_inverse",
        "gain_inverse",
        "inverse_condition",
        "predicted_activation_error",
        "bounded_activation_error",
    ),
)

DETERMINISM = Probe(
    name="determinism",
    function="revbench.probes.determinism:measure_determinism",
    sentence="whether identical steps give identical bits, and where they part",
    metrics=(
        Metric("runs", COUNT, "of the same step", head="Steps"),
        Metric("identical", COUNT, "1 if loss, gradients and weights are, bit for bit; else 0", "count", "higher"),
        word("first_difference", "the first place where bits differ", "Bits"),
        Metric("differing_gradients", COUNT, "how many gradients differ in any run", "count", "lower"),
        Metric("gradients", COUNT, "of how many"),
    ),
    lines=("{runs} steps that part at the {first_difference}", "{runs} steps with equal bits"),
)
