"""What is looked for: each check uses a fresh copy of the network in one way, and compares with the derivative of its loss.

The loss along moved weights needs no second network and no knowledge of how it back-propagates: it is right of any library.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revbench.doctor.declared import Finding, Verdict
from revbench.doctor.scenarios import CalledTwice, ChangedInPlace, InputsAsParameters, Plainly
from revbench.doctor.subject import WRONG, Loss, Subject, share
from revbench.doctor.twins import store
from revbench.errors import first_line
from revbench.numerics.activations import round_trips
from revbench.numerics.derivative import norm_of
from revbench.numerics.passes import seed_generators
from revbench.observing.calling import call
from revbench.observing.nested import tensors_in
from revbench.probes.live_tensors import LiveTensors
from revbench.workload import Workload

Run = Callable[[Subject], tuple[Verdict, str]]

_DROPOUT = 0.3
_UNLIKE = 0.5  # of the gradient's norm: what no rounding to bfloat16 explains
_OFF = 0.1  # the same of float32
_GROWS, _STAYS = 1.5, 1.1  # times the memory, four times as deep
_DEEPER = 4
_INVERSE_OFF = 1e-3


class Unanswerable(Exception):
    """A check can't be made of this network; the message says why."""


def check(subject: Subject, name: str) -> Finding:
    """Returns what one check finds; what the network raises is a finding, too."""
    try:
        verdict, words = RUNS[name](subject)
    except Unanswerable as error:
        return Finding(name, "can't tell", str(error))
    except Exception as error:
        return Finding(name, "failed", f"raises {type(error).__name__}: {first_line(error)}")
    return Finding(name, verdict, words)


def _verdict(wrong: str | None, right: str = "it is right") -> tuple[Verdict, str]:
    return ("passed", right) if wrong is None else ("failed", wrong)


def gradient(subject: Subject) -> tuple[Verdict, str]:
    """With dropouts off, the batch as it is given."""
    network = Plainly(subject.fresh())
    found = subject.run(network)
    wrong = subject.judged_gradient(network, found.gradient)
    error = subject.error(network, found.gradient) / max(norm_of(found.gradient), 1e-300)
    return _verdict(wrong, f"{share(error)} off, of {len(found.gradient)} tensors")


def twin(subject: Subject) -> tuple[Verdict, str]:
    """Gradients of the package's own two ways, where it has two."""
    other = subject.fresh()
    by = store(other)
    if by is None:
        raise Unanswerable("no switch is known by which this network keeps its activations")
    ours, theirs = subject.run(Plainly(subject.fresh())), subject.run(Plainly(other))
    size = norm_of(theirs.gradient)
    error = norm_of({name: ours.gradient[name] - g for name, g in theirs.gradient.items()}) / max(size, 1e-300)
    return ("passed" if error <= WRONG else "failed"), f"{share(error)} of the gradient differs from that with {by}"


def inverse(subject: Subject) -> tuple[Verdict, str]:
    """Each block's own inverse, one after the other from the end."""
    model = subject.fresh().eval()
    found, left_out = round_trips(model, subject.copied())
    if not found:
        reason = next(iter(left_out.values()), "no module has an inverse")
        raise Unanswerable(f"no inverse can be called: {reason}" if left_out else reason)
    name, worst = max(found.items(), key=lambda pair: pair[1].rms)
    words = f"{share(worst.rms)} off after {len(found)} blocks, at {name or 'the network'}"
    return ("passed" if worst.rms <= _INVERSE_OFF else "failed"), words


def buffers(subject: Subject) -> tuple[Verdict, str]:
    """Those after forward are those after backward."""
    model = subject.fresh()
    before = {name: b.clone() for name, b in model.named_buffers()}
    loss = _loss(subject, model)
    forward = {name: b.clone() for name, b in model.named_buffers()}
    loss.backward()
    changed = [n for n, b in model.named_buffers() if n in forward and not torch.equal(b, forward[n])]
    if changed:
        counters = [n for n in changed if n.endswith("num_batches_tracked")]
        if counters:
            name = counters[0]
            times = int(dict(model.named_buffers())[name] - before[name])
            return "failed", f"{len(changed)} buffers change in backward; {name} counts {times} batches for one"
        return "failed", f"{len(changed)} buffers change in backward, first {changed[0]}"
    written = [n for n, b in forward.items() if not torch.equal(b, before[n])]
    twice = [n for n in written if n.endswith("num_batches_tracked") and int(forward[n] - before[n]) > 1]
    if twice:
        return "failed", f"{twice[0]} counts {int(forward[twice[0]] - before[twice[0]])} batches for one, in forward"
    if not written:
        raise Unanswerable("no buffer is written in forward: there is no batch norm")
    return "passed", f"{len(written)} buffers are written once"


def dropout(subject: Subject) -> tuple[Verdict, str]:
    """With its own dropouts, or one that is planted where backward runs a module again."""
    model, where = _with_dropout(subject)
    return _verdict(subject.judged(Plainly(model)), f"the same masks in both passes, with {where}")


def generator(subject: Subject) -> tuple[Verdict, str]:
    """With dropout: the state after forward is the state after backward."""
    model, where = _with_dropout(subject)
    seed_generators(7)
    loss = _loss(subject, model)
    state = torch.get_rng_state()
    loss.backward()
    if torch.equal(torch.get_rng_state(), state):
        return "passed", f"as it was after forward, with {where}"
    return "failed", f"backward moves it, with {where}"


def autocast(subject: Subject) -> tuple[Verdict, str]:
    """Backward outside the region, as PyTorch's documentation has it."""
    return _under_autocast(subject, inside=False)


def autocast_cache(subject: Subject) -> tuple[Verdict, str]:
    """Backward inside the region: weights that were cast without a graph are found by having no gradient."""
    return _under_autocast(subject, inside=True)


def _under_autocast(subject: Subject, *, inside: bool) -> tuple[Verdict, str]:
    reference = subject.run(Plainly(subject.fresh())).gradient
    error, without = _autocast_error(subject, subject.fresh(), reference, inside=inside)
    if without:
        return "failed", f"{len(without)} of {len(reference)} weights get no gradient, first {without[0]}"
    other = subject.fresh()
    stored = _autocast_error(subject, other, reference, inside=inside)[0] if store(other) is not None else 0.0
    words = f"{share(error)} off the float64 gradient"
    if stored:
        words += f", {share(stored)} with stored activations"
    if error > max(_UNLIKE, 4 * stored):
        return "failed", words
    return "passed", words


def _autocast_error(
    subject: Subject, model: nn.Module, reference: Mapping[str, Tensor], *, inside: bool
) -> tuple[float, list[str]]:
    model = model.float()
    inputs, targets = _in(torch.float32, subject)
    device = next(tensors_in(subject.inputs)).device.type
    seed_generators(7)
    with torch.autocast(device, torch.bfloat16):
        loss = subject.loss(call(model, inputs), targets)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    found = {f"model.{n}": torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}
    size = norm_of(reference)
    without = [
        name.removeprefix("model.")
        for name, g in reference.items()
        if name in found and norm_of({name: found[name]}) == 0 and norm_of({name: g}) > 1e-6 * size
    ]
    difference = norm_of({name: found[name].double() - g for name, g in reference.items() if name in found})
    return difference / max(size, 1e-300), without


def input_gradient(subject: Subject) -> tuple[Verdict, str]:
    """Leaves, and tensors that an operation made of them."""
    _need_floating_inputs(subject)
    for trunk, what in ((None, "leaf"), (_trunk, "what a trunk made")):
        wrong = subject.judged(InputsAsParameters(subject.fresh(), subject.inputs, trunk=trunk))
        if wrong is not None:
            return "failed", f"given a {what}: {wrong}"
    return "passed", "it is right of both"


def input_without_gradient(subject: Subject) -> tuple[Verdict, str]:
    """All that is before the first module that backward runs again is frozen."""
    forward, again, model = subject.called_leaves()
    model.zero_grad(set_to_none=True)
    first = next((module for module in forward if module in again), None)
    if first is None:
        raise Unanswerable("backward is not seen to run any module again, so where the blocks begin is not known")
    for module in forward[: forward.index(first)]:
        module.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise Unanswerable("there is no weight in or after the blocks")
    return _verdict(subject.judged(Plainly(model)), "weights are trained all the same")


def shared_input(subject: Subject) -> tuple[Verdict, str]:
    """A loss of the input beside that of the network."""
    _need_floating_inputs(subject)
    network = InputsAsParameters(subject.fresh(), subject.inputs, trunk=_trunk, elsewhere=True)

    def loss(outputs: Any, targets: Any) -> Tensor:
        assert network.beside is not None
        return subject.loss(outputs, targets) + network.beside

    return _verdict(subject.judged(network, loss))


def output_in_place(subject: Subject) -> tuple[Verdict, str]:
    """An operation that writes over the outputs."""
    try:
        return _verdict(subject.judged(ChangedInPlace(subject.fresh())))
    except RuntimeError as error:
        return "passed", f"refused: {first_line(error)}"


def frozen(subject: Subject) -> tuple[Verdict, str]:
    """Every second parameter, and all but the last."""
    for which, what in ((slice(0, None, 2), "every second"), (slice(0, -1), "all but the last")):
        model = subject.fresh()
        for parameter in list(model.parameters())[which]:
            parameter.requires_grad_(False)
        if not any(p.requires_grad for p in model.parameters()):
            continue
        wrong = subject.judged(Plainly(model))
        if wrong is not None:
            return "failed", f"with {what} frozen: {wrong}"
    return "passed", "every second, and all but the last"


def parameter_hooks(subject: Subject) -> tuple[Verdict, str]:
    """Hooks that count and halve."""
    model = subject.fresh()
    reference = subject.run(Plainly(subject.fresh())).gradient
    calls: dict[str, int] = {}

    def hook(name: str, grad: Tensor) -> Tensor:
        calls[name] = calls.get(name, 0) + 1
        return grad * 0.5

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(functools.partial(hook, name))
    found = subject.run(Plainly(model)).gradient
    twice = [name for name, count in calls.items() if count > 1]
    if twice:
        return "failed", f"{len(twice)} of {len(calls)} fire more than once, first that of {twice[0]}"
    error = norm_of({n: 2 * found[n] - g for n, g in reference.items()}) / max(norm_of(reference), 1e-300)
    return ("passed" if error <= WRONG else "failed"), f"{len(calls)} fire once; {share(error)} off"


def module_hooks(subject: Subject) -> tuple[Verdict, str]:
    """A hook that halves what a module inside the blocks returns."""
    forward, again, model = subject.called_leaves()
    model.zero_grad(set_to_none=True)
    module = _middle(again or forward)
    module.register_forward_hook(lambda module, args, out: out * 0.5)
    return _verdict(subject.judged(Plainly(model)), f"respected, at a {type(module).__name__}")


def accumulation(subject: Subject) -> tuple[Verdict, str]:
    """Two calls, one backward pass."""
    return _verdict(subject.judged(CalledTwice(subject.fresh())))


def autograd_grad(subject: Subject) -> tuple[Verdict, str]:
    """Asked for the gradient of every parameter."""
    network = Plainly(subject.fresh())
    reference = subject.run(Plainly(subject.fresh())).gradient
    parameters = dict(network.named_parameters())
    loss = _loss(subject, network)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    written = [n for n, p in parameters.items() if p.grad is not None]
    if written:
        return "failed", f"it writes .grad of {len(written)} parameters, first {written[0].removeprefix('model.')}"
    wrong = {
        n: (torch.zeros_like(reference[n]) if g is None else g) - reference[n]
        for n, g in zip(parameters, found, strict=True)
    }
    error = norm_of(wrong) / max(norm_of(reference), 1e-300)
    return ("passed" if error <= WRONG else "failed"), f"{share(error)} off what backward gives"


def second_derivative(subject: Subject) -> tuple[Verdict, str]:
    """The derivative of the gradient along a direction, against a difference of gradients."""
    network = Plainly(subject.fresh())
    parameters = {n: p for n, p in network.named_parameters() if p.requires_grad}
    draw = torch.Generator().manual_seed(1)
    direction = {n: torch.randn(p.shape, generator=draw, dtype=torch.float64).to(p) for n, p in parameters.items()}
    step = 1e-6 * norm_of(parameters) / max(norm_of(direction), 1e-300)
    ends = []
    for sign in (step, -step):
        moved = Plainly(subject.fresh())
        with torch.no_grad():
            for n, p in moved.named_parameters():
                if n in direction:
                    p.add_(direction[n], alpha=sign)
        ends.append(subject.run(moved).gradient)
    expected = {n: (ends[0][n] - ends[1][n]) / (2 * step) for n in parameters}
    try:
        loss = _loss(subject, network)
        grads = torch.autograd.grad(loss, list(parameters.values()), create_graph=True, allow_unused=True)
        along = [
            (g * direction[n]).sum()
            for n, g in zip(parameters, grads, strict=True)
            if g is not None and g.requires_grad
        ]
        if not along:
            return "failed", "the gradient has no graph, silently"
        found = torch.autograd.grad(torch.stack(along).sum(), list(parameters.values()), allow_unused=True)
    except (RuntimeError, NotImplementedError) as error:
        return "passed", f"refused: {first_line(error)}"
    differences = {
        n: (torch.zeros_like(expected[n]) if h is None else h) - expected[n]
        for n, h in zip(parameters, found, strict=True)
    }
    off = norm_of(differences) / max(norm_of(expected), 1e-300)
    return ("passed" if off <= 10 * WRONG else "failed"), f"{share(off)} off"


def evaluation(subject: Subject) -> tuple[Verdict, str]:
    """After a step in train()."""
    model = subject.fresh()
    _loss(subject, model).backward()
    model.eval()
    return _verdict(subject.judged(Plainly(model)))


def determinism(subject: Subject) -> tuple[Verdict, str]:
    """The same step twice."""
    one, other = (subject.run(Plainly(subject.fresh())).gradient for _ in range(2))
    unlike = [name for name, g in one.items() if not torch.equal(g, other[name])]
    if unlike:
        return (
            "failed",
            f"{len(unlike)} of {len(one)} gradients differ, first that of {unlike[0].removeprefix('model.')}",
        )
    return "passed", f"{len(one)} gradients are equal, bit for bit"


def float32(subject: Subject) -> tuple[Verdict, str]:
    """The gradient of the same weights and batch."""
    error = _float32_error(subject.fresh(), subject.inputs, subject.targets, subject.loss)
    return ("passed" if error <= _OFF else "failed"), f"{share(error)} off the float64 gradient"


def depth(subject: Subject) -> tuple[Verdict, str]:
    """The same, four times and sixteen times as deep."""
    found: list[str] = []
    for times in (_DEEPER, _DEEPER**2):
        built = subject.deeper(times, dtype="float64")
        if built is None:
            raise Unanswerable("it can't be made deeper: its factory has no argument like depth=… or blocks=…")
        inputs, targets = built.batch()
        error = _float32_error(built.model, inputs, targets, built.loss)
        if not error <= _OFF:
            return "failed", f"{times} times as deep {share(error)} of the float32 gradient is wrong"
        found.append(f"{share(error)} at {times} times")
    return "passed", f"off the float64 gradient: {', '.join(found)}"


def _float32_error(model: nn.Module, inputs: Any, targets: Any, loss: Loss) -> float:
    gradients = []
    for dtype in (torch.float64, torch.float32):
        twin = copy.deepcopy(model).to(dtype)
        for module in twin.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        given, wanted = (_cast(dtype, value) for value in (inputs, targets))
        seed_generators(7)
        loss(call(twin, given), wanted).backward()
        gradients.append({n: p.grad.double() for n, p in twin.named_parameters() if p.grad is not None})
    exact, rounded = gradients
    differences = {n: rounded.get(n, torch.zeros_like(g)) - g for n, g in exact.items()}
    error = norm_of(differences) / max(norm_of(exact), 1e-300)
    return error if error == error else float("inf")


def memory(subject: Subject) -> tuple[Verdict, str]:
    """The peak of forward and backward above the steady state, by live tensors."""
    shallow, deep = (subject.deeper(times, dtype="float32") for times in (1, _DEEPER))
    if shallow is None or deep is None:
        raise Unanswerable("it can't be made deeper: its factory has no argument like depth=… or blocks=…")
    few, many = (_peak(built) for built in (shallow, deep))
    words = f"{many / few:.2f} times the activations' bytes, {_DEEPER} times as deep"
    if many <= _STAYS * few:
        return "passed", words
    return ("failed" if many >= _GROWS * few else "can't tell"), words


def _peak(built: Workload) -> int:
    model = built.model
    inputs, targets = built.batch()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    live = LiveTensors()
    live.track(model, tensors_in(inputs), tensors_in(targets))
    steady = live.live_bytes
    with live:
        built.loss(call(model, inputs), targets).backward()
    return max(1, live.peak_bytes - steady)


def readable(subject: Subject) -> tuple[Verdict, str]:
    """What was given and what came out, read after backward; this may end the process, which is a finding."""
    model = subject.fresh()
    given = subject.copied()
    made = [_trunk(x) for x in tensors_in(given) if x.is_floating_point()]
    left = iter(made)
    inputs = torch.utils._pytree.tree_map(
        lambda x: next(left) if isinstance(x, Tensor) and x.is_floating_point() else x, given
    )
    before = [x.detach().clone() for x in made]
    seed_generators(7)
    outputs = call(model, inputs)
    copies = [y.detach().clone() for y in tensors_in(outputs)]
    subject.loss(outputs, subject.targets).backward()
    for what, now, then in (("output", list(tensors_in(outputs)), copies), ("input", made, before)):
        for one, other in zip(now, then, strict=True):
            if one.untyped_storage().nbytes() < one.numel() * one.element_size():
                return "failed", f"the memory of the {what} is gone"
            if not torch.allclose(one.detach(), other, rtol=1e-6, atol=1e-9, equal_nan=True):
                return "failed", f"the {what} has other values than before"
    return "passed", "both are what they were"


def _trunk(x: Tensor) -> Tensor:
    return x * 1.25


def _loss(subject: Subject, model: nn.Module) -> Tensor:
    return subject.loss(call(model, subject.copied()), subject.targets)


def _need_floating_inputs(subject: Subject) -> None:
    if not subject.has_floating_inputs():
        raise Unanswerable("its inputs are integers, which have no gradient")


def _cast(dtype: torch.dtype, value: Any) -> Any:
    from revbench.observing.nested import map_tensors

    return map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x.clone(), value)


def _in(dtype: torch.dtype, subject: Subject) -> tuple[Any, Any]:
    return _cast(dtype, subject.inputs), _cast(dtype, subject.targets)


def _middle(modules: list[nn.Module]) -> nn.Module:
    if not modules:
        raise Unanswerable("no module inside returns one tensor")
    return modules[len(modules) // 2]


def _with_dropout(subject: Subject) -> tuple[nn.Module, str]:
    """Returns a copy that draws random numbers inside the blocks, and what draws them."""
    forward, again, _ = subject.called_leaves()
    names = {module: i for i, module in enumerate(forward)}
    model = subject.fresh(dropout=True)
    active = [m for m in model.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0]
    if active:
        return model, f"its own {len(active)} dropouts"
    at = names[_middle([module for module in forward if module in again] or forward)]
    # The same module of the copy: modules are in the same order in both.
    order = [type(module) for module in forward]
    target = _nth_called(subject, model, at)
    assert type(target) is order[at]
    plain = target.forward

    def planted(*args: Any, **kwargs: Any) -> Tensor:
        return F.dropout(plain(*args, **kwargs), _DROPOUT)

    target.forward = planted
    return model, f"one planted behind a {order[at].__name__}"


def _nth_called(subject: Subject, model: nn.Module, at: int) -> nn.Module:
    from revbench.observing.module_calls import around_module_calls

    called: dict[nn.Module, None] = {}

    def note(module: nn.Module, outputs: Any) -> None:
        if not any(True for _ in module.children()) and isinstance(outputs, Tensor) and outputs.is_floating_point():
            called[module] = None

    with around_module_calls(after=note), torch.no_grad():
        seed_generators(7)
        before = {name: b.clone() for name, b in model.named_buffers()}
        call(model, subject.copied())
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])
    return list(called)[at]


RUNS: Mapping[str, Run] = {
    "gradient": gradient, "twin": twin, "inverse": inverse, "buffers": buffers, "dropout": dropout, "generator": generator,
    "autocast": autocast, "autocast_cache": autocast_cache, "input_gradient": input_gradient,
    "input_without_gradient": input_without_gradient, "shared_input": shared_input, "output_in_place": output_in_place,
    "frozen": frozen, "parameter_hooks": parameter_hooks, "module_hooks": module_hooks, "accumulation": accumulation,
    "autograd_grad": autograd_grad, "second_derivative": second_derivative, "evaluation": evaluation,
    "determinism": determinism, "float32": float32, "depth": depth, "memory": memory, "readable": readable,
}  # fmt: skip
