"""The gradient of one step against that of `stored` in float64: as it is, and with its switches frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from revbench.backprop import Certificate, StrategyModule
from revbench.numerics.activations import ActivationError, Reconstructions, round_trips
from revbench.numerics.components import Components, compare_components
from revbench.numerics.derivative import norm_of
from revbench.numerics.gradient_errors import ErrorTable, PartError, blocks
from revbench.numerics.networks import Networks, SetStrategy, set_strategies
from revbench.numerics.passes import Loss, Pass, Step, autocast_to, device_of, random_states_kept
from revbench.numerics.reference import (
    check_measurable,
    copied,
    is_compiled,
    own_gradients_aside,
    reference_condition,
    reference_derivative_error,
    run_reference,
)
from revbench.numerics.switches import Switches
from revbench.numerics.twins import check_twins
from revbench.observing.nested import map_tensors

_SAME_BATCH = 1e-5  # a noise below this is that of one batch, drawn again


@dataclass(frozen=True, kw_only=True)
class GradientDrift:
    """One draw: the gradient under a strategy and under `stored`, both against `stored` in float64.

    Attributes:
        whole: of the whole gradient; its `activation` is the worst block's.
        stored_angle_degrees: of the gradient of `stored` in the same arithmetic.
        smooth_reason: why there are no flips and no smooth part, if there are none.
        units: how many switches there are; None if they could not be followed.
        blocks, tensors: the same, place by place; blocks in the network's order, tensors of one number left out.
        activation_reason: why there is no activation error, if there is none.
        trace: what the step leaves behind otherwise than `stored` does: names of buffers, ``random generator``.
        casts: names of modules that cast to a narrower dtype in the float64 reference, with that dtype.
        loss: the reference's.
        loss_scale: what the loss was multiplied with (float16 autocast), a power of two; 1 otherwise.
        certificates: of chains that certify.
        own_functions: functions of autograd by which the reference itself back-propagates, if they are neither PyTorch's nor
            ours and no chain of ours is inside: there is no stored twin then.
        derivative_error: how far the reference's gradient then is from the derivative of its loss, relative
            (`revbench.numerics.derivative`); None where there is a stored twin.
        expected_flips, expected_stored_flips: how many units should flip, from the density of their inputs at zero and the errors
            of these (`revbench.numerics.switches.Switches.expected_flips`); None where that is not known.
        components: of the gradient, number by number.
        noise: the standard deviation of the stored gradient over batches at the same weights, over the reference's norm: what a
            minibatch leaves open anyway; None if there was one batch.
        condition: of the reference's gradient: the relative change of it by a small relative change of the weights in a random
            direction, over that change.
        blocks_left_out: invertible blocks that are not ours and whose activations could not be reconstructed, with the reason.
    """

    whole: PartError
    stored_angle_degrees: float
    smooth_reason: str | None
    units: int | None
    blocks: Mapping[str, PartError]
    tensors: Mapping[str, PartError]
    activation_reason: str | None
    trace: tuple[str, ...]
    casts: Mapping[str, torch.dtype]
    loss: float
    loss_scale: float
    certificates: tuple[Certificate, ...] = ()
    own_functions: tuple[str, ...] = ()
    derivative_error: float | None = None
    expected_flips: float | None = None
    expected_stored_flips: float | None = None
    components: Components | None = None
    noise: float | None = None
    condition: float | None = None
    blocks_left_out: Mapping[str, str] = field(default_factory=dict)


def compare_gradients(
    model: nn.Module,
    loss: Loss,
    inputs: Any,
    targets: Any,
    *,
    autocast: str = "none",
    seed: int = 0,
    strategy: str | None = None,
    set_strategy: SetStrategy = set_strategies,
    follow_switches: bool = True,
    other_batches: Sequence[tuple[Any, Any]] = (),
    closer: bool = True,
) -> GradientDrift:
    """Measure one gradient; the model and the random generators are left as they were.

    All passes start from copies with the same weights, buffers and random numbers. The reference is the model in float64
    under `stored`; it computes with the rounded weights and inputs, so that what is found is the arithmetic's and not the
    rounding of what enters it. The gradient is that of the loss alone, before weight decay (an optimizer's affair).
    Dropout masks are the same: on the CPU PyTorch draws equal ones in every dtype; on a GPU `torch.nn.functional.dropout`
    is drawn in float32 here, whatever the activation's dtype. Random numbers that are not equal in every dtype make the
    reference another function; the verdict says so.

    Args:
        model: in training mode, on its device and in its dtype.
        loss: from outputs and targets to a scalar.
        inputs, targets: one batch, in the model's dtype and on its device.
        autocast: ``none``, ``bfloat16`` or ``float16``.
        seed: of the random numbers inside the model.
        strategy: which to set; None takes the model's own.
        set_strategy: sets a strategy on a model; your own for reversible networks that are not ours.
        follow_switches: False leaves out flips and smooth part (compiled code can't be followed).
        other_batches: as the first: by their gradients the noise of a minibatch is measured.
        closer: also the condition number and the components, and whether `set_strategy` sets two ways to one function.

    Raises:
        FloatingPointError: loss or gradient is not finite; the message says where this began.
        UserError: the strategy can't be set; the model can't be copied or run in float64, has complex parameters or none
            that need gradient; the loss uses the model itself.
    """
    check_measurable(model)
    with random_states_kept(), own_gradients_aside(model):
        networks = Networks.of(model, strategy, set_strategy)
        batch = inputs, targets
        wide = map_tensors(lambda x: x.double() if x.is_floating_point() else x, batch)
        # What follows switches would also break up what is compiled, and another gradient would be judged.
        compiled = networks.name == "torch_budget" or any(map(is_compiled, model.modules()))
        follow = _follow if follow_switches and not compiled else _do_not_follow
        step = Step(loss, seed, autocast).with_loss_scale(networks.plain, *batch)
        if networks.are_twins and closer:
            check_twins(loss, seed, copied(networks.plain), copied(networks.ours), wide, networks.name)
        reference = run_reference(loss, seed, networks.exact, wide, follow(networks.exact))
        alone = reference.own_functions if not networks.chains and not networks.are_twins else ()
        wrong = reference_derivative_error(loss, seed, networks.exact, wide, reference.gradient) if alone else None
        same = autocast == "none" and all(p.dtype == torch.float64 for p in networks.plain.parameters())
        stored = reference if same else step.run(networks.plain, *batch, "stored", follow(networks.plain))
        own, activations = _own_pass(step, networks, batch, stored, follow)
        left_out: dict[str, str] = {}
        if not networks.chains and networks.name != "stored":
            with autocast_to(autocast, device_of(model)):
                activations, left_out = round_trips(copied(networks.plain), inputs)
        smooth, reason = _smooth_passes(step, networks, batch, (reference, stored, own))
        expected = _expected_flips(own, reference), _expected_flips(stored, reference)
        noise = _noise(step, networks.plain, stored, other_batches, reference)
        condition = None
        if closer:
            frozen = follow(networks.exact, reference.switches) if reason is None else None
            condition = reference_condition(loss, seed, networks.exact, wide, reference.gradient, frozen)
    errors = ErrorTable(reference, stored, own, *smooth, followed=reason is None)
    worst = max(activations.values(), key=lambda error: math.inf if math.isnan(error.rms) else error.rms, default=None)
    return GradientDrift(
        whole=errors.of(list(reference.gradient), worst, at=errors.switch_modules),
        stored_angle_degrees=errors.stored_angle_degrees(),
        smooth_reason=reason,
        units=reference.switches.units() if reference.switches is not None and reason is None else None,
        blocks=blocks(model, errors, activations),
        tensors={key: errors.of([key]) for key, value in reference.gradient.items() if value.numel() > 1},
        activation_reason=None if activations else _why_no_activations(networks),
        trace=_trace(stored, own),
        casts=reference.switches.casts if reference.switches is not None else {},
        loss=reference.loss,
        loss_scale=step.loss_scale,
        certificates=tuple(chain.certificate for chain in networks.chains if chain.certificate is not None),
        own_functions=alone,
        expected_flips=expected[0] if reason is None else None,
        expected_stored_flips=expected[1] if reason is None else None,
        components=compare_components(own.gradient, reference.gradient) if closer else None,
        noise=noise,
        condition=condition,
        derivative_error=wrong,
        blocks_left_out=left_out,
    )


Follow = Callable[..., "Switches | None"]


def _follow(model: nn.Module, imposed: Switches | None = None) -> Switches | None:
    return Switches(model, frozen_to=imposed)


def _do_not_follow(model: nn.Module, imposed: Switches | None = None) -> Switches | None:
    return None


def _own_pass(
    step: Step, networks: Networks, batch: tuple[Any, Any], stored: Pass, follow: Follow
) -> tuple[Pass, dict[str, ActivationError]]:
    """Returns the pass under the strategy that is measured, and how far its reconstructed activations were off, by block."""
    witnesses = _place_witnesses(networks.ours)
    own = stored
    if networks.name != "stored":
        own = step.run(networks.ours, *batch, networks.name, follow(networks.ours))
    for chain in networks.chains:
        chain.witness = None
    return own, _activation_errors(witnesses)


def _smooth_passes(
    step: Step, networks: Networks, batch: tuple[Any, Any], passes: tuple[Pass, Pass, Pass]
) -> tuple[tuple[Pass | None, Pass | None], str | None]:
    """Returns the passes of stored and of the strategy with every switch as in the reference; or why that can't be had.

    Args:
        step, networks, batch: how they are run.
        passes: reference, stored, and the strategy's own.
    """
    reference, stored, own = passes
    if reference.switches is None and reference.unfollowed is None:
        return (None, None), "compiled code can't be followed"
    reason = reference.unfollowed or own.unfollowed or stored.unfollowed
    if reason is not None:
        return (None, None), reason
    try:
        smooth_stored = _smoothed(step, stored, reference, networks.plain, batch, "stored")
        smooth_own = smooth_stored
        if networks.name != "stored":
            smooth_own = _smoothed(step, own, reference, networks.ours, batch, networks.name)
    except NotImplementedError as error:  # the passes called unlike functions
        return (None, None), str(error)
    reason = smooth_stored.unfollowed or smooth_own.unfollowed
    return ((smooth_stored, smooth_own), None) if reason is None else ((None, None), reason)


def _smoothed(step: Step, found: Pass, reference: Pass, model: nn.Module, batch: tuple[Any, Any], called: str) -> Pass:
    """Returns a pass with every switch as in the reference; the same one, if that is so already."""
    imposed = reference.switches
    if found.switches is None or imposed is None or not any(found.switches.flips(imposed).values()):
        return found
    return step.run(model, *batch, called, Switches(model, frozen_to=imposed))


def _expected_flips(found: Pass, reference: Pass) -> float | None:
    if found.switches is None or reference.switches is None or found is reference:
        return None
    return found.switches.expected_flips(reference.switches)


def _noise(
    step: Step, model: nn.Module, stored: Pass, other_batches: Sequence[tuple[Any, Any]], reference: Pass
) -> float | None:
    """Returns the standard deviation of the gradient over batches, relative to the reference's norm."""
    norm = norm_of(reference.gradient)
    if not other_batches or not norm > 0:
        return None
    found = [stored.gradient]
    for batch in other_batches:  # another one may overflow at another loss scale
        scaled = replace(step, loss_scale=1.0).with_loss_scale(model, *batch)
        found.append(scaled.run(model, *batch, "stored").gradient)
    squares = 0.0
    for name in reference.gradient:
        values = torch.stack([gradient[name].double() for gradient in found])
        squares += (values - values.mean(0)).square().sum().item() / (len(found) - 1)
    noise = math.sqrt(squares) / norm
    return noise if noise > _SAME_BATCH else None


def _place_witnesses(model: nn.Module) -> dict[str, Reconstructions]:
    """Have the activations of each chain looked at that reconstructs and does not certify; by the name of its blocks."""
    found: dict[str, Reconstructions] = {}
    for name, chain in model.named_modules():
        if isinstance(chain, StrategyModule) and chain.strategy == "reconstructed" and not chain.certify:
            units = next((key for key, child in chain.named_children() if isinstance(child, nn.ModuleList)), None)
            if units is not None:
                chain.witness = found[f"{name}.{units}" if name else units] = Reconstructions()
    return found


def _activation_errors(witnesses: Mapping[str, Reconstructions]) -> dict[str, ActivationError]:
    return {
        f"{name}.{number}": error for name, witness in witnesses.items() for number, error in witness.errors().items()
    }


def _why_no_activations(networks: Networks) -> str:
    if networks.name != "reconstructed":
        return f"{networks.name} reconstructs no activation"
    if any(chain.certify for chain in networks.chains):
        return "the certificate's checksums take the place of the activations"
    if networks.chains:
        return "no activation was reconstructed"
    return "no module inside has forward(x1, x2) and inverse(y1, y2)"


def _trace(stored: Pass, own: Pass) -> tuple[str, ...]:
    """Returns what differs after the two passes, bit for bit."""
    found = [
        name
        for name, value in stored.buffers.items()
        if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(own.buffers[name]))
    ]
    if not all(map(torch.equal, stored.random_state, own.random_state)):
        found.append("random generator")
    return tuple(found)
