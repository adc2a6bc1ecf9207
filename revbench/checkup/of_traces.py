"""Checks of what a step leaves behind: buffers, random numbers, hooks, the memory of what went in and came out."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from revbench.checkup.declared import Answer
from revbench.checkup.of_gradients import by, reference, relative_error
from revbench.checkup.scenarios import Plainly
from revbench.checkup.subject import Subject, Unanswerable
from revbench.observing.nested import tensors_in


def buffers(subject: Subject) -> Answer:
    """Those after forward are those after backward."""
    model = subject.fresh()
    before = {name: b.clone() for name, b in model.named_buffers()}
    loss = subject.loss_of(model)
    forward = {name: b.clone() for name, b in model.named_buffers()}
    loss.backward()
    now = dict(model.named_buffers())
    counted = {n: int(now[n] - before[n]) for n in before if n.endswith("num_batches_tracked") and n in now}
    changed = [n for n in forward if n in now and not torch.equal(now[n], forward[n])]
    if changed:
        words = f"{len(changed)} buffers change in backward"
        often = next((n for n, count in counted.items() if count > 1 and n in changed), None)
        return (
            "failed",
            f"{words}; {often} counts {counted[often]} batches for one" if often else f"{words}, first {changed[0]}",
        )
    written = [n for n, b in forward.items() if n in before and not torch.equal(b, before[n])]
    if not written:
        raise Unanswerable("no buffer is written in forward: there is no batch norm")
    return "passed", f"{len(written)} buffers are written in forward alone"


def parameter_hooks(subject: Subject) -> Answer:
    """Hooks that count and halve."""
    model, expected = subject.fresh(), reference(subject)
    calls: dict[str, int] = {}

    def hook(name: str, grad: Tensor) -> Tensor:
        calls[name] = calls.get(name, 0) + 1
        return grad * 0.5

    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(functools.partial(hook, name))
    found = {name: 2 * g for name, g in subject.run(Plainly(model)).gradient.items()}
    twice = [name for name, count in calls.items() if count > 1]
    if twice:
        return "failed", f"{len(twice)} of {len(calls)} fire more than once, first that of {twice[0]}"
    return by(relative_error(found, expected), f"off; {len(calls)} fire once")


def readable(subject: Subject) -> Answer:
    """What entered the blocks and what left them, read after backward; this may end the process, which is a finding."""
    model = subject.fresh()
    first, last = subject.leaves.ends()
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {"input": [], "output": []}

    def note(what: str, values: Any) -> None:
        seen[what] += [(x, x.detach().clone()) for x in tensors_in(values) if x.is_floating_point()]

    model.get_submodule(first).register_forward_pre_hook(
        lambda module, args, kwargs: note("input", (args, kwargs)), with_kwargs=True
    )
    model.get_submodule(last).register_forward_hook(lambda module, args, outputs: note("output", outputs))
    subject.loss_of(model).backward()
    for what, pairs in seen.items():
        for now, then in pairs:
            if now.numel() and now.untyped_storage().nbytes() == 0:
                return "failed", f"the memory of the blocks' {what} is gone"
            if now.shape != then.shape or not torch.allclose(now.detach(), then, rtol=1e-6, atol=1e-9, equal_nan=True):
                return "failed", f"the blocks' {what} has other values than before"
    return "passed", "both are what they were"
