"""Several draws of one measurement as one record, and what may be demanded of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from revbench.case import Arithmetic
from revbench.numerics.gradient_errors import PartError
from revbench.numerics.gradients import GradientDrift
from revbench.numerics.part_table import DRIFT_COLUMNS, MEDIANS, PartTable
from revbench.numerics.statistics import summarise_draws, why_missing
from revbench.numerics.verdict import Verdict, judge, strange_reference, wrong_derivative

BREAKDOWN = 0.1  # relative error of the activations from which a dtype is said to break down
_REFERENCE = "stored in float64 is the reference itself"
_OTHER_KINKS = "pooling windows, or units with another kink than at zero, are among them"
# Share of the gradient below which a tensor's own angle is that of noise (a bias before batch norm).
_NEGLIGIBLE = 1e-12


@dataclass(frozen=True)
class DriftRecord:
    """What the gradient of one network under one strategy and arithmetic was found to be.

    Attributes:
        draws: of weights and batch.
        arithmetic: in which it was computed.
        strategy: whose gradient it is.
    """

    draws: Sequence[GradientDrift]
    arithmetic: Arithmetic
    strategy: str

    def samples(self) -> dict[str, list[float]]:
        """Returns each quantity draw by draw; those that could not be had are left out."""
        exact = self.arithmetic.is_reference  # it has no error to divide by
        epsilon = self.arithmetic.epsilon
        found: dict[str, list[float]] = {}
        for draw in self.draws:
            whole = draw.whole
            values: dict[str, float | int | None] = {
                "angle_degrees": whole.angle_degrees,
                "relative_error": whole.relative_error,
                "error_epsilons": whole.relative_error / epsilon,
                "stored_angle_degrees": draw.stored_angle_degrees,
                "stored_relative_error": whole.stored_relative_error,
                "amplification": None if exact else ratio(whole.relative_error, whole.stored_relative_error),
                "smooth_relative_error": whole.smooth_relative_error,
                "smooth_error_epsilons": _over(whole.smooth_relative_error, epsilon),
                "smooth_stored_relative_error": whole.smooth_stored_relative_error,
                "smooth_amplification": (
                    None if exact else ratio(whole.smooth_relative_error, whole.smooth_stored_relative_error)
                ),
                "flips": whole.flips,
                "stored_flips": whole.stored_flips,
                "expected_flips": draw.expected_flips,
                "expected_stored_flips": draw.expected_stored_flips,
                "noise": draw.noise,
                "error_over_noise": _over(whole.relative_error, draw.noise) if draw.noise else None,
                "significant_digits": -math.log10(whole.relative_error) if whole.relative_error > 0 else None,
                "gradient_condition": draw.condition,
                "backward_error_epsilons": (
                    whole.smooth_relative_error / draw.condition / epsilon
                    if whole.smooth_relative_error is not None and draw.condition
                    else None
                ),
            }
            if draw.components is not None:
                values["component_ulps_median"] = draw.components.median / epsilon
                values["component_ulps_q99"] = draw.components.q99 / epsilon
                values["wrong_sign_share"] = draw.components.wrong_sign_share
            if whole.activation is not None:
                values["activation_error"] = whole.activation.rms
                values["activation_error_epsilons"] = whole.activation.rms / self.arithmetic.stream_epsilon
                parts = [p.activation.largest for p in draw.blocks.values() if p.activation]
                values["activation_largest_error"] = max(parts)
            values["derivative_error"] = draw.derivative_error
            for name, value in values.items():
                if value is not None:
                    found.setdefault(name, []).append(float(value))
        return found

    def trace(self) -> Sequence[str]:
        """Returns what any draw left behind otherwise than `stored` does, counted where it is much."""
        found = list(dict.fromkeys(name for draw in self.draws for name in draw.trace))
        return found if len(found) <= 3 else [*found[:2], f"{len(found) - 2} others"]

    def blocks_left_out(self) -> str | None:
        """Invertible blocks whose activations are not among the errors, in words."""
        found = {name: why for draw in self.draws for name, why in draw.blocks_left_out.items()}
        return (
            "; ".join(f"{name}: {why}" for name, why in list(found.items())[:3])
            + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            or None
        )

    def own_functions(self) -> str | None:
        """Names the functions by which the network back-propagates where there is no stored twin."""
        return ", ".join(dict.fromkeys(name for draw in self.draws for name in draw.own_functions)) or None

    def casts(self, *, coarser: bool) -> str | None:
        """Returns where the network casts to a narrower dtype in the float64 reference, in words.

        Args:
            coarser: only dtypes that are coarser than the arithmetic that is measured: a fault in the network. Others
                make the reference no better than they are.
        """
        found = {
            f"{str(dtype).removeprefix('torch.')} inside {name}": None
            for draw in self.draws
            for name, dtype in draw.casts.items()
            if not coarser or torch.finfo(dtype).eps > self.arithmetic.epsilon
        }
        names = list(found)
        return ", ".join(names if len(names) <= 3 else [*names[:2], f"{len(names) - 2} others"]) or None

    def metrics(self) -> dict[str, float | int | str | None]:
        """Returns medians by quantity, with ``_q05``, ``_q95``, ``_low``, ``_high``; why some are missing; the verdict."""
        first = self.draws[0]
        found: dict[str, float | int | str | None] = {"draws": len(self.draws), "loss_scale": first.loss_scale}
        samples = self.samples()
        exact = self.arithmetic.is_reference
        for name, values in samples.items():
            summary = summarise_draws(values)
            found[name] = None if summary is None else summary.median
            if summary is not None:
                for key in ("q05", "q95", "low", "high"):
                    found[f"{name}_{key}"] = getattr(summary, key)
                    if getattr(summary, key) is None:
                        found[f"{name}_{key}_reason"] = why_missing(key, len(values))
        for names, reason in (
            (("amplification", "smooth_amplification"), _REFERENCE),
            (("flips", "smooth_relative_error", "smooth_amplification"), first.smooth_reason),
            (("activation_error", "activation_error_epsilons"), first.activation_reason),
            (
                ("expected_flips", "expected_stored_flips"),
                first.smooth_reason or (_REFERENCE if exact else _OTHER_KINKS),
            ),
            (("noise", "error_over_noise"), "one batch was given, and noise is between batches"),
            (("backward_error_epsilons",), first.smooth_reason),
        ):
            for name in names:
                if name not in samples and reason is not None:
                    found |= {name: None, f"{name}_reason": reason}
        found["units"] = first.units
        found["blocks_left_out"] = self.blocks_left_out()
        found["own_functions"] = self.own_functions()
        worst = max(
            (
                (part.angle_degrees, name)
                for draw in self.draws
                for name, part in draw.tensors.items()
                if part.share > _NEGLIGIBLE
            ),
            key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0], default=(0.0, None),
        )  # fmt: skip
        found["worst_tensor_angle_degrees"], found["worst_tensor"] = worst
        found["trace"] = ", ".join(self.trace()) or None
        found["casts"], found["coarse_casts"] = self.casts(coarser=False), self.casts(coarser=True)
        found |= _along(self.parts())
        verdict = self.verdict()
        found["verdict"], found["verdict_head"], found["verdict_words"] = verdict.word, verdict.head, verdict.words
        return found

    def parts(self) -> PartTable:
        """Returns a line for each block and each tensor: medians over draws, and the largest activation error of any."""
        lines: list[list[Any]] = []
        for level in ("block", "tensor"):
            by_draw = [draw.blocks if level == "block" else draw.tensors for draw in self.draws]
            for name in by_draw[0]:
                errors = [found[name] for found in by_draw]
                activations = [error.activation for error in errors if error.activation]
                values = [activation.rms for activation in activations]
                lines.append([
                    level, name, *(_median(errors, _field(key)) for key in MEDIANS),
                    _median(errors, lambda error: error.activation.rms if error.activation else None),
                    min(values, default=None), max(values, default=None),
                    max((activation.largest for activation in activations), default=None), *_logarithms(values),
                ])  # fmt: skip
        return PartTable.of_lines(DRIFT_COLUMNS, lines)

    def verdict(self) -> Verdict:
        """Tells whether the gradient can be trusted, in words."""
        return judge(
            self.samples(), self.parts(), self.strategy, self.arithmetic, self.trace(), self.casts(coarser=True),
            self.own_functions(),
        )  # fmt: skip

    def assert_within(
        self,
        *,
        angle_degrees: float | None = None,
        smooth_amplification: float | None = None,
        activation_error: float | None = None,
    ) -> None:
        """Demand bounds of every draw. Whatever the bounds, a step must leave no other trace than `stored`, and compute in
        nothing coarser than the arithmetic that is measured.

        Args:
            angle_degrees: to the float64 gradient, flips and all.
            smooth_amplification: the smooth error over that of `stored`.
            activation_error: relative, RMS, of the worst block.

        Raises:
            AssertionError: what was found, and where; also if a bound is given for what could not be measured.
        """
        problems = []
        samples = self.samples()
        metrics = self.metrics()
        if metrics["trace"]:
            problems.append(f"a step leaves {metrics['trace']} otherwise than stored does")
        if metrics["coarse_casts"]:
            problems.append(f"it computes in {metrics['coarse_casts']}, coarser than {self.arithmetic.name}")
        if (wrong := wrong_derivative(samples, self.own_functions())) is not None:
            problems.append(wrong)
        if (strange := strange_reference(samples)) is not None:
            problems.append(strange)
        bounds = {
            "angle_degrees": angle_degrees,
            "smooth_amplification": smooth_amplification,
            "activation_error": activation_error,
        }
        for name, bound in bounds.items():
            if bound is None:
                continue
            if len(samples.get(name, ())) < len(self.draws):  # every draw must be within, so every draw must have it
                reasons = [
                    draw.smooth_reason for draw in self.draws if draw.smooth_reason and name.startswith("smooth")
                ]
                reason = metrics.get(f"{name}_reason") or next(iter(reasons), "it is not defined in every draw")
                problems.append(f"{name} could not be measured: {reason}")
                continue
            worst = max(samples[name], key=lambda value: math.inf if math.isnan(value) else value)
            if not worst <= bound:
                problems.append(f"{name} is {worst:.3g}, above {bound:.3g}{self._where(name)}")
        if problems:
            raise AssertionError(
                f"{'; '.join(problems)} ({self.arithmetic.name}, {len(self.draws)} draws; {self.verdict().words})"
            )

    def _where(self, name: str) -> str:
        """Returns the block to look at first."""
        key = {"activation_error": "activation_error", "smooth_amplification": "smooth_relative_error"}.get(
            name, "relative_error"
        )
        blocks = [(block, error) for block, error in self.parts().blocks(key) if error is not None]
        blocks = [(block, error) for block, error in blocks if not math.isnan(error)]
        if not blocks:
            return ""
        worst, error = max(blocks, key=lambda line: line[1])
        return f", most in {worst} ({error:.3g})"


def _along(parts: PartTable) -> dict[str, float | int | str | None]:
    """Returns how the activations' error grows on the way back, and where it breaks down.

    ``activation_growth_per_block``: the slope of its logarithm over the longest run of reconstructed blocks, by least
    squares, as a factor a block. ``breakdown_block``: the first block on the way back whose activations are off by
    `BREAKDOWN` or more.
    """
    runs: list[list[tuple[str, float]]] = [[]]
    for name, error in parts.blocks("activation_error"):
        if error is not None:
            runs[-1].append((name, error))
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    found: dict[str, float | int | str | None] = {}
    if not longest:
        return found
    back = list(reversed(longest))
    if len(back) >= 3 and all(error > 0 for _, error in back):
        slope = statistics.linear_regression(range(len(back)), [math.log(error) for _, error in back]).slope
        found["activation_growth_per_block"] = math.exp(slope)
    broken = [name for run in reversed(runs) for name, error in reversed(run) if error >= BREAKDOWN]
    found["breakdown_block"] = broken[0] if broken else None
    return found


def ratio(error: float | None, stored: float | None) -> float | None:
    """Returns an amplification: 1 of two exact gradients, infinite where only `stored` is exact; None where there is no error."""
    if error is None or stored is None:
        return None
    return error / stored if stored else (math.inf if error else 1.0)


def _logarithms(errors: Sequence[float]) -> tuple[float | None, float | None]:
    """Returns the mean and the standard deviation of the natural logarithms over draws: what a comparison tells noise by."""
    if not errors or min(errors) <= 0:
        return None, None
    logarithms = [math.log(error) for error in errors]
    return statistics.fmean(logarithms), statistics.stdev(logarithms) if len(logarithms) > 1 else None


def _over(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit


def _field(name: str) -> Callable[[PartError], float | None]:
    return lambda part: getattr(part, name)


def _median(parts: Sequence[PartError], of: Callable[[PartError], float | None]) -> float | None:
    values = [v for part in parts if (v := of(part)) is not None and math.isfinite(v)]
    return float(statistics.median(values)) if values else None
