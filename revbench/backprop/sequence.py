"""Any modules one after the other, which need not be reversible, under the strategies that only run them again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from revbench.backprop.arguments import SharedArguments
from revbench.backprop.propagation import propagate
from revbench.backprop.strategy_module import StrategyModule
from revbench.choices import Strategy
from revbench.errors import UserError

State = tuple[Tensor, ...]


class UnitSequence(StrategyModule):
    """Modules one after the other; see `sequential`."""

    def __init__(self, units: Iterable[nn.Module], strategy: Strategy) -> None:
        super().__init__(("stored", "checkpointed", "recursive"), strategy, "kept")
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor | State, **kwargs: Any) -> Tensor | State:
        """Run them.

        Args:
            x: a tensor, or a tuple of them: what enters the first.
            kwargs: what each is called with beside that: masks, positions. Tensors among them that need gradient get theirs.

        Returns:
            What leaves the last: a tensor if that is all it returns, else a tuple.

        Raises:
            TypeError: neither a tensor nor a tuple of tensors enters.
        """
        state = (x,) if isinstance(x, Tensor) else x
        if not (isinstance(state, tuple) and state and all(isinstance(one, Tensor) for one in state)):
            raise TypeError(f"a sequence of units takes a tensor or a tuple of tensors, not {type(x).__name__}")
        left = propagate(
            list(self.units), state, owner=self, way=self.backpropagation, tripwire=self.tripwire,
            arguments=SharedArguments(kwargs, len(self.units)),
        )  # fmt: skip
        return left[0] if len(left) == 1 else left

    def pieces(self) -> list[nn.Module]:
        """The units."""
        return list(self.units)


def sequential(
    units: Iterable[nn.Module], *, strategy: Strategy = "checkpointed", tripwire: bool = True
) -> UnitSequence:
    """Returns any modules one after the other, whose activations are kept or had again.

    Args:
        units: modules from a tensor, or several, to as many as the next one takes.
        strategy: ``stored``, ``checkpointed`` (about sqrt L of L states are kept), ``recursive`` (log L), or one of PyTorch's own
            ways (``torch_checkpoint``, ``torch_selective``, ``torch_budget``, ``torch_offload``); settable later.
        tripwire: as of `revbench.reversible`.

    Raises:
        UserError: an unknown strategy, or a unit that is no module.

    Example:
        >>> trunk = revbench.sequential([Block() for _ in range(24)], strategy="checkpointed")
        >>> trunk(x, attention_mask=mask).sum().backward()
    """
    units = list(units)
    for i, unit in enumerate(units):
        if not isinstance(unit, nn.Module):
            raise UserError(f"unit {i} of a sequence must be a torch.nn.Module, not a {type(unit).__name__}")
    made = UnitSequence(units, strategy)
    made.tripwire = tripwire
    return made
