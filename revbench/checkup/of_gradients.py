"""Checks of the gradient: is it the derivative of the loss, however the network is used?"""

from __future__ import annotations

from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from revbench.checkup.declared import Answer
from revbench.checkup.scenarios import (
    CalledTwice,
    ChangedInPlace,
    GivenALeaf,
    InputsAsParameters,
    Plainly,
    UsedElsewhere,
)
from revbench.checkup.subject import WRONG, Subject, Unanswerable, share
from revbench.checkup.twins import store
from revbench.errors import first_line
from revbench.numerics.activations import round_trips
from revbench.numerics.derivative import norm_of
from revbench.observing.nested import map_tensors, tensors_in

_INVERSE_OFF = 1e-3
_SAID = 110  # letters of what a network says when it refuses
_LITTLE = 1e-300
_SECOND_MOVES = (1e-5, 1e-6, 1e-7)  # a kink between two points is in some of them only


def gradient(subject: Subject) -> Answer:
    """With dropouts off, the batch as it is given."""
    network = Plainly(subject.fresh())
    found = subject.run(network).gradient
    wrong = subject.plainly_wrong(network, found)
    if wrong is None:
        error = subject.error(network, found) / max(norm_of(found), _LITTLE)
        return "passed", f"{share(error)} off, of {len(found)} tensors"
    why = "; it draws random numbers that are no dropout's, perhaps others in backward" if subject.draws() else ""
    return (
        "failed",
        f"{wrong}{why}; {len(subject.known)} of {len(found)} tensors are wrong, which the other checks leave out",
    )


def reference(subject: Subject) -> dict[str, Tensor]:
    """Returns the gradient by plain use, but for what is wrong in any case.

    Raises:
        Unanswerable: all of it is.
    """
    found = subject.run(Plainly(subject.fresh())).gradient
    right = {name: g for name, g in found.items() if name not in subject.known}
    if not right:
        raise Unanswerable("the gradient is wrong in any case")
    return right


def relative_error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Returns by how much of its norm a gradient differs from another; what it has not is taken for zero."""
    differences = {n: found[n] - g if n in found else g for n, g in expected.items()}
    return norm_of(differences) / max(norm_of(expected), _LITTLE)


def judgement(wrong: str | None, right: str = "it is right") -> Answer:
    """Returns the answer that follows from what is wrong."""
    return ("passed", right) if wrong is None else ("failed", wrong)


def by(error: float, words: str, most: float = WRONG) -> Answer:
    """Returns the answer that follows from a relative error."""
    return ("passed" if error <= most else "failed"), f"{share(error)} {words}"


def twin(subject: Subject) -> Answer:
    """Gradients of the package's own two ways, where it has two."""
    other = subject.fresh()
    switch = store(other, subject.own_setter)
    if switch is None:
        raise Unanswerable("no switch is known by which this network keeps its activations")
    ours, theirs = subject.run(Plainly(subject.fresh())).gradient, subject.run(Plainly(other)).gradient
    return by(relative_error(ours, theirs), f"of the gradient differs from that with {switch}")


def inverse(subject: Subject) -> Answer:
    """Each block's own inverse, one after the other from the end."""
    model = subject.fresh().eval()
    if store(model, subject.own_setter) is None and not any(
        callable(getattr(m, "inverse", None)) for m in model.modules()
    ):
        raise Unanswerable("no module has an inverse")
    found, left_out = round_trips(model, subject.copied())
    if not found:
        raise Unanswerable(f"no inverse can be called: {next(iter(left_out.values()), 'there is none')}")
    name, worst = max(found.items(), key=lambda pair: pair[1].rms)
    return by(worst.rms, f"off after {len(found)} blocks, at {name or 'the network'}", _INVERSE_OFF)


def input_gradient(subject: Subject) -> Answer:
    """A leaf that enters the blocks; of the network itself leaves, and tensors that an operation made of them."""
    first, _ = subject.leaves.ends()
    inner = GivenALeaf(subject.fresh(), first, subject.inputs)
    if inner.leaf is not None and (wrong := subject.judged(inner)) is not None:
        return "failed", f"given a leaf, the blocks: {wrong}"
    if not any(x.is_floating_point() for x in tensors_in(subject.inputs)):
        if inner.leaf is None:
            raise Unanswerable("its inputs are integers, and where the blocks begin is not known")
        return "passed", "it is right of a leaf that enters the blocks"
    for trunk, what in ((None, "a leaf"), (lambda x: x * 1.25, "what a trunk made")):
        wrong = subject.judged(InputsAsParameters(subject.fresh(), subject.inputs, trunk=trunk))
        if wrong is not None:
            return "failed", f"given {what}, the network: {wrong}"
    return "passed", "it is right of a leaf and of what a trunk made"


def input_without_gradient(subject: Subject) -> Answer:
    """What enters the blocks is detached."""
    first, _ = subject.leaves.ends()
    if not first:
        raise Unanswerable("it is not seen where the blocks begin")
    model = subject.fresh()
    model.get_submodule(first).register_forward_pre_hook(_detached, with_kwargs=True)
    network = Plainly(model)
    found = {name: g for name, g in subject.run(network).gradient.items() if subject.is_inside(name)}
    return judgement(subject.judged_gradient(network, found), "weights inside are trained all the same")


def _detached(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return map_tensors(torch.detach, args), map_tensors(torch.detach, kwargs)


def shared_input(subject: Subject) -> Answer:
    """A loss of what enters and leaves the blocks, beside that of the network."""
    network = UsedElsewhere(subject.fresh(), *subject.leaves.ends())
    return judgement(
        subject.judged(network, lambda outputs, targets: subject.loss(outputs, targets) + network.beside())
    )


def output_in_place(subject: Subject) -> Answer:
    """An operation that writes over what leaves the blocks."""
    _, last = subject.leaves.ends()
    network = ChangedInPlace(subject.fresh(), last)
    try:
        found = subject.run(network).gradient
    except Exception as error:
        return "passed", f"refused: {shorten(first_line(error), _SAID, placeholder=' …')}"
    return judgement(subject.judged_gradient(network, found))


def frozen(subject: Subject) -> Answer:
    """Every second parameter; all but the last of those inside the blocks."""
    names = [name for name, p in subject.fresh().named_parameters() if p.requires_grad]
    inside = [name for name in names if subject.is_inside(f"model.{name}")]
    ways = {"every second": names[1::2]}
    if inside:  # else it is not known where the blocks are
        ways[f"all but {inside[-1]}"] = inside[-1:]
    said: list[str] = []
    for what, kept in ways.items():
        if not kept or kept == names:
            continue
        model = subject.fresh()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in kept)
        try:
            wrong = subject.judged(Plainly(model))
        except Unanswerable:
            continue
        if wrong is not None:
            return "failed", f"with {what} frozen: {wrong}"
        said.append(what)
    if not said and len(names) < 2:
        raise Unanswerable("it has one parameter, which can't be frozen alone")
    if not said:
        raise Unanswerable("the gradient is wrong in any case")
    return "passed", f"with {' and with '.join(said)} frozen"


def module_hooks(subject: Subject) -> Answer:
    """A hook that halves what a module inside the blocks returns."""
    model = subject.fresh()
    module = model.get_submodule(subject.middle())
    module.register_forward_hook(lambda module, args, out: out * 0.5)
    return judgement(subject.judged(Plainly(model)), f"respected, at a {type(module).__name__}")


def accumulation(subject: Subject) -> Answer:
    """Two calls, one backward pass of the sum of both losses."""

    def loss(outputs: Any, targets: Any) -> Tensor:
        first, second = outputs
        return subject.loss(first, targets) + subject.loss(second, targets)

    return judgement(subject.judged(CalledTwice(subject.fresh()), loss))


def autograd_grad(subject: Subject) -> Answer:
    """Asked for the gradient of every parameter."""
    network, expected = Plainly(subject.fresh()), reference(subject)
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(subject.loss_of(network), list(parameters.values()), allow_unused=True)
    written = [n for n, p in parameters.items() if p.grad is not None]
    if written:
        return "failed", f"it writes .grad of {len(written)} parameters, first {written[0].removeprefix('model.')}"
    given = {n: g for n, g in zip(parameters, found, strict=True) if g is not None}
    return by(relative_error(given, expected), "off what backward gives")


def second_derivative(subject: Subject) -> Answer:
    """The derivative of the gradient along a direction, against a difference of gradients."""
    network = Plainly(subject.fresh())
    right = reference(subject)
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad and n in right}
    draw = torch.Generator().manual_seed(1)
    direction = {n: torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p) for n, p in parameters.items()}
    expected = []
    for move in _SECOND_MOVES:
        step = move * norm_of(parameters) / max(norm_of(direction), _LITTLE)
        ends = [_gradient_beside(subject, direction, sign) for sign in (step, -step)]
        expected.append({n: (ends[0][n] - ends[1][n]) / (2 * step) for n in parameters})
    try:
        loss = subject.loss_of(network)
        grads = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
        along = [
            (g * direction[n]).sum()
            for n, g in zip(parameters, grads, strict=True)
            if g is not None and g.requires_grad
        ]
        if not along:
            return "failed", "the gradient has no graph, silently"
        found = torch.autograd.grad(torch.stack(along).sum(), list(parameters.values()), allow_unused=True)
    except Exception as error:
        return "passed", f"refused: {shorten(first_line(error), _SAID, placeholder=' …')}"
    given = {n: h for n, h in zip(parameters, found, strict=True) if h is not None}
    return by(min(relative_error(given, one) for one in expected), "off", 10 * WRONG)


def _gradient_beside(subject: Subject, direction: dict[str, Tensor], distance: float) -> dict[str, Tensor]:
    moved = Plainly(subject.fresh())
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in direction:
                parameter.add_(direction[name], alpha=distance)
    return subject.run(moved).gradient


def evaluation(subject: Subject) -> Answer:
    """After a step in train()."""
    model = subject.fresh()
    subject.loss_of(model).backward()
    return judgement(subject.judged(Plainly(model.eval())))


def determinism(subject: Subject) -> Answer:
    """The same step twice."""
    one, other = (subject.run(Plainly(subject.fresh())).gradient for _ in range(2))
    unlike = [name for name, g in one.items() if not torch.equal(g, other[name])]
    if unlike:
        return (
            "failed",
            f"{len(unlike)} of {len(one)} gradients differ, first that of {unlike[0].removeprefix('model.')}",
        )
    return "passed", f"{len(one)} gradients are equal, bit for bit"
