"""A reversible chain as a careful stranger writes one, and the same with one fault each that the field knows."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import dropout, mse_loss


class Dropping(nn.Module):
    """A dropout that is called as a function."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, 0.3, self.training)


class Noisy(nn.Module):
    """Random numbers that are no dropout's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (0.5 + torch.rand_like(x))


def function(width: int = 4, *, fault: str = "") -> nn.Module:
    last = [Dropping()] if "of calls" in fault else [Noisy()] if "of noise" in fault else []
    return nn.Sequential(nn.BatchNorm1d(width), nn.Tanh(), nn.Linear(width, width), *last)


class _Chain(torch.autograd.Function):
    """``b + m(a)``, again and again; keeps what leaves, and runs each m again in backward."""

    @staticmethod
    def forward(ctx: Any, chain: StrangersChain, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.chain, ctx.states, ctx.kept = chain, [], []
        ctx.autocast = torch.is_autocast_enabled("cpu")
        b, a = x.chunk(2, 1)
        for m in chain.functions():
            ctx.states.append(torch.get_rng_state())
            a, b = b * chain.decay + m(a), a
            if chain.fault == "keeps":
                ctx.kept += [a.clone(), b.clone()]
        y = torch.cat((b, a), 1)
        if chain.fault == "frees its input":
            x.zero_()
        if chain.fault == "writes its input":
            x.data.mul_(2.0)
        if chain.fault == "one slot":
            chain.slot = y.detach()
        ctx.y = y.detach() if chain.fault == "ignores versions" else None
        ctx.save_for_backward(*(() if ctx.y is not None else (y,)))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        chain: StrangersChain = ctx.chain
        fault = chain.fault
        if torch.is_grad_enabled() and fault != "second":
            raise RuntimeError("second derivatives are not possible")
        if fault == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        y = chain.slot if fault == "one slot" else ctx.y if ctx.y is not None else ctx.saved_tensors[0]
        (b, a), (db, da) = y.chunk(2, 1), dy.chunk(2, 1)
        found: dict[nn.Parameter, Tensor] = {}
        for m, state in reversed(list(zip(chain.functions(), ctx.states, strict=True))):
            buffers = [(buffer, buffer.clone()) for buffer in m.buffers()]
            own = fault in ("doubles hooks", "writes .grad")  # else hooks on parameters fire here, too
            cast = fault == "freezes casts" and torch.is_autocast_enabled("cpu")
            aliases = (
                {}
                if own
                else {n: p.detach().requires_grad_(p.requires_grad and not cast) for n, p in m.named_parameters()}
            )
            leaf, value = _again(chain, m, b, state, aliases, autocast=ctx.autocast)
            a, b = b, ((a - value.detach()) / chain.decay).to(a.dtype)
            parameters = [(p, aliases.get(n, p)) for n, p in m.named_parameters() if p.requires_grad]
            wanted = [leaf, *(one for _, one in parameters if one.requires_grad)]
            parameters = [(p, one) for p, one in parameters if one.requires_grad]
            if fault == "writes .grad":
                value.backward(da.to(value.dtype))
                of_a, *of_parameters = leaf.grad, *(None for _ in wanted[1:])
            else:
                of_a, *of_parameters = torch.autograd.grad(value, wanted, da.to(value.dtype), allow_unused=True)
            for buffer, before in buffers if fault != "writes buffers" else ():
                buffer.copy_(before)
            found |= {p: g for (p, _), g in zip(parameters, of_parameters, strict=True) if g is not None}
            assert of_a is not None
            da, db = db + of_a, da * chain.decay
        factor = (
            1.02 if fault == "scales" else 1 + 1e-13 * np.random.default_rng().random() if fault == "random" else 1.0
        )
        if fault == "doubles in float32" and dy.dtype == torch.float32:
            factor = 2.0
        given = [found.get(p) for m in chain.functions() for p in m.parameters()]
        if fault == "counts gradients":
            given = [g for g in given if g is not None] + [None for g in given if g is None]
        return None, torch.cat((db, da), 1), *(None if g is None else g * factor for g in given)


def _again(
    chain: StrangersChain, m: nn.Module, a: Tensor, state: Tensor, aliases: dict[str, Tensor], *, autocast: bool
) -> tuple[Tensor, Tensor]:
    fault, now = chain.fault, torch.get_rng_state()
    if fault not in ("masks", "masks of calls", "masks of noise"):
        torch.set_rng_state(state)
    hooks = [(n, n._forward_hooks.copy()) for n in m.modules()]
    if fault == "skips hooks":
        for n in m.modules():
            n._forward_hooks.clear()
    mode = m.training
    m.train(mode or fault == "trains in eval")
    surroundings = (
        nullcontext() if fault == "forgets autocast" else torch.autocast("cpu", torch.bfloat16, enabled=autocast)
    )
    with torch.enable_grad(), surroundings:
        leaf = a.detach().requires_grad_()
        value = m(leaf) if not aliases else functional_call(m, aliases, (leaf,))
    m.train(mode)
    for n, kept in hooks:
        n._forward_hooks.update(kept)
    if fault not in ("masks", "masks of calls", "masks of noise", "moves the generator"):
        torch.set_rng_state(now)
    return leaf, value


class StrangersChain(nn.Module):
    """Pairs of functions on halves of dimension 1."""

    def __init__(self, blocks: int, fault: str) -> None:
        super().__init__()
        self.plain = False  # whether autograd keeps the activations
        self.fault, self.decay, self.slot = fault, 0.25 if fault == "loses" else 1.0, torch.zeros(())
        self.blocks = nn.ModuleList(nn.ModuleList(function(fault=fault) for _ in range(2)) for _ in range(blocks))

    def functions(self) -> list[nn.Module]:
        return [m for pair in self.blocks for m in pair]  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        if self.plain:
            b, a = x.chunk(2, 1)
            for m in self.functions():
                a, b = b * self.decay + m(a), a
            return torch.cat((b, a), 1)
        if self.fault == "doubles a leaf" and x.is_leaf and x.requires_grad:
            x = x + x - x.detach()
        parameters = [p for m in self.functions() for p in m.parameters()]
        y: Tensor = _Chain.apply(self, x, *([] if self.fault == "writes .grad" else parameters))
        return y


class InvertibleChain(StrangersChain):
    """The same with an inverse."""

    def inverse(self, y: Tensor) -> Tensor:
        b, a = y.chunk(2, 1)
        for m in reversed(self.functions()):
            b, a = a + m(b) if self.fault == "inverts by adding" else a - m(b), b
        return torch.cat((b, a), 1)


class Network(nn.Module):
    def __init__(self, blocks: int, fault: str) -> None:
        super().__init__()
        chain = (InvertibleChain if "inverts" in fault else StrangersChain)(blocks, fault)
        self.stem, self.chain, self.head = nn.Linear(3, 8), chain, nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.chain(self.stem(x)))
        return logits


def network(fault: str = "", blocks: int = 2) -> tuple[nn.Module, Callable[..., Any], Callable[..., Tensor]]:
    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 3, generator=generator), torch.randn(count, 2, generator=generator)

    return Network(blocks, fault.replace("_", " ")), make_batch, mse_loss


def set_strategy(model: nn.Module, strategy: str) -> None:
    for module in model.modules():
        if isinstance(module, StrangersChain):
            module.plain = strategy == "stored"


def two_ways(fault: str = "", blocks: int = 2) -> tuple[Any, ...]:
    """The same with what sets its two ways."""
    return (*network(fault, blocks), set_strategy)


class Compiled(nn.Module):
    """Residual blocks that are compiled, with a copy of the compiled function for each copy of the network."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(function(8) for _ in range(blocks))
        self._compiled: Any = None

    def forward(self, x: Tensor) -> Tensor:
        def run(y: Tensor) -> Tensor:
            for block in self.blocks:
                y = y + block(y)
            return y

        if self._compiled is None:
            self._compiled = torch.compile(run, backend="eager")
        y: Tensor = self._compiled(x)
        return y

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        other = Compiled(0)
        memo[id(self)] = other
        other.blocks = copy.deepcopy(self.blocks, memo)
        return other


def compiled(blocks: int = 2) -> tuple[nn.Module, Callable[..., Any], Callable[..., Tensor]]:
    def make_batch(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 8, generator=generator), torch.randn(count, 8, generator=generator)

    return Compiled(blocks), make_batch, mse_loss
