"""PyTorch's own ways to keep fewer activations, as they are, on the same units: what the strategies are compared with.

They are strategies by name, so that they stand in the same tables; what they do with batch norm, random numbers
or errors is PyTorch's. `torch.utils.checkpoint` updates batch norm's running values twice a step, for one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop.random_states import differ, random_states
from revbench.backprop.strangers import nodes_behind
from revbench.choices import Strategy

State = tuple[Tensor, ...]
_Given = Sequence[Mapping[str, Any]]  # the keyword arguments of each unit

# The share of what `stored` keeps that the compiler may keep (torch._functorch.config.activation_memory_budget): half,
# since 1 is its default, by which it keeps what is not free to compute again, and 0 is a checkpoint around everything.
ACTIVATION_MEMORY_BUDGET = 0.5


def run_torch_strategy(
    strategy: Strategy,
    units: Sequence[nn.Module],
    state: State,
    budgeted: BudgetedUnits,
    own: _Given,
) -> State:
    """Run units one after the other under one of PyTorch's own ways.

    Args:
        strategy: ``torch_checkpoint``: `torch.utils.checkpoint.checkpoint` around each unit. ``torch_selective``: the
            same, but the outputs of convolutions and matrix products are kept (selective activation
            checkpointing). ``torch_offload``: everything is kept, in the memory of the host
            (`torch.autograd.graph.save_on_cpu`). ``torch_budget``: all units compiled as one graph, of which half
            the activations are kept, chosen by the compiler.
        units: from a state to a state.
        state: the tensors that enter the first unit.
        budgeted: keeps the compiled graph of ``torch_budget`` from call to call.
        own: the keyword arguments of each unit.

    Raises:
        NotImplementedError: ``torch_offload`` on the CPU, whose activations are in the host's memory already; random numbers
            that PyTorch would draw anew in backward, so that the gradient would be wrong: any under ``torch_budget``,
            RReLU's under the checkpoints.
    """
    if strategy == "torch_offload":
        if state[0].device.type == "cpu":
            raise NotImplementedError("torch_offload moves activations to the host's memory; on the CPU they are there")
        with torch.autograd.graph.save_on_cpu(pin_memory=True):
            return _run(units, state, own)
    if strategy == "torch_budget":
        before = random_states(state[0].device)
        result = budgeted(units, state, own)
        if differ(before, random_states(state[0].device)):
            raise NotImplementedError(
                "torch_budget draws random numbers anew in backward (an open fault of PyTorch's activation memory budget), so the"
                " gradient of a network with dropout would be wrong; use torch_checkpoint or a strategy of revbench's"
            )
        return result
    from torch.utils.checkpoint import checkpoint, noop_context_fn

    contexts = _selective_contexts if strategy == "torch_selective" else noop_context_fn
    for unit, given in zip(units, own, strict=True):
        before = random_states(state[0].device)
        outputs = checkpoint(unit, *state, use_reentrant=False, context_fn=contexts, **given)
        state = outputs if isinstance(outputs, tuple) else (outputs,)
        if differ(before, random_states(state[0].device)) and _holds_rrelu(state):
            raise NotImplementedError(
                "PyTorch's checkpoint gives RReLU other random slopes in backward, so its gradient would be wrong; use a"
                " strategy of revbench's"
            )
    return state


def _holds_rrelu(state: State) -> bool:
    """Tells whether the graph that leads to these tensors has a randomised ReLU in it."""
    nodes = nodes_behind(y.grad_fn for y in state if y.grad_fn is not None)
    return any(node.name().startswith("RreluWithNoise") for node in nodes)


class BudgetedUnits:
    """Units compiled as one graph under `ACTIVATION_MEMORY_BUDGET`, once; a copy of it, or one from a file, compiles anew."""

    def __init__(self) -> None:
        self._units: tuple[nn.Module, ...] = ()
        self._compiled: Callable[[State, _Given], State] | None = None

    def __call__(self, units: Sequence[nn.Module], state: State, given: _Given) -> State:
        """What leaves the last of the units."""
        import torch._functorch.config as settings

        if self._compiled is None or self._units != tuple(units):
            self._units = tuple(units)
            self._compiled = torch.compile(functools.partial(_run, self._units))
        with settings.patch(activation_memory_budget=ACTIVATION_MEMORY_BUDGET):
            return self._compiled(state, given)

    def __deepcopy__(self, memo: dict[int, Any]) -> BudgetedUnits:
        return BudgetedUnits()

    def __reduce__(self) -> tuple[Any, ...]:
        return BudgetedUnits, ()


def _selective_contexts() -> Any:
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    aten = torch.ops.aten
    kept = {aten.convolution.default, aten.mm.default, aten.addmm.default, aten.bmm.default}

    def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> Any:
        return CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def _run(units: Sequence[nn.Module], state: State, given: _Given) -> State:
    for unit, own in zip(units, given, strict=True):
        outputs = unit(*state, **own)
        state = outputs if isinstance(outputs, tuple) else (outputs,)
    return state
