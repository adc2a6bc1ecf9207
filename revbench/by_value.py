"""Networks that exist in a notebook only: written down by value, for the process that measures them.

`cloudpickle` writes code and what it refers to; what is imported from a module is imported again there. Only what this very
process has written, into a folder that nobody else can reach, is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from revbench.backprop import StrategyModule
from revbench.errors import UserError
from revbench.observing.nested import tensors_in

VARIABLE = "REVBENCH_BY_VALUE"  # of the environment: the folder in which it lies
_LONGEST = 60  # letters of a name


@dataclass(frozen=True)
class ByValue:
    """What is written down.

    Attributes:
        network: a module, which is measured with the weights that it has; or a function as a factory's.
        batch: inputs, or inputs and targets, of every step; or a function as a factory's ``make_batch``; None for what a
            factory's network gets otherwise.
        loss: from outputs and targets to a scalar.
    """

    network: nn.Module | Callable[[], Any]
    batch: Any = None
    loss: Callable[[Any, Any], Tensor] | None = None

    def made(self) -> Any:
        """Returns what a factory returns (see `revbench.workload`)."""
        made = self.network if isinstance(self.network, nn.Module) else self.network()
        if self.batch is None and self.loss is None:
            return made
        parts = made if isinstance(made, tuple) and len(made) in (3, 4) else (made, None, None)
        model, make_batch, loss, *own_setter = parts
        if callable(self.batch):
            make_batch = self.batch
        elif self.batch is not None:
            make_batch, loss = self._same_batch, loss or mean_square
        return (model, make_batch, self.loss or loss, *own_setter)

    def _same_batch(self, count: int, generator: torch.Generator) -> tuple[Any, Any]:
        return self.batch if isinstance(self.batch, tuple) and len(self.batch) == 2 else (self.batch, None)

    def strategy(self) -> str | None:
        """Returns the strategy that everything inside a module has; None of a function, or where there are several or none."""
        network = self.network
        modules = network.modules() if isinstance(network, nn.Module) else ()
        found = {str(one.strategy) for one in modules if isinstance(one, StrategyModule)}
        return found.pop() if len(found) == 1 else None

    def items(self) -> int | None:
        """Returns how many items a batch has that is given as tensors; None of any other."""
        found = [] if self.batch is None or callable(self.batch) else list(tensors_in(self.batch))
        return len(found[0]) if found and found[0].dim() else None


def mean_square(outputs: Any, targets: Any) -> Tensor:
    """Returns the mean of the squares of all outputs: a loss for a batch without targets."""
    wide = (y if y.dtype == torch.float64 else y.float() for y in tensors_in(outputs))
    return torch.stack([y.square().mean() for y in wide]).mean()


def write_by_value(thing: ByValue, folder: Path) -> str:
    """Write something down; returns the name by which a case calls it.

    Raises:
        UserError: something in it can't be written down, an open file, say.
    """
    import cloudpickle

    try:
        data = cloudpickle.dumps(thing)
    except Exception as error:  # of whatever the network refers to
        raise UserError(f"this network can't be handed to the process that measures it: {error}") from error
    digest = sha256(data).hexdigest()[:16]
    (folder / digest).write_bytes(data)
    network = thing.network
    name = type(network).__name__ if isinstance(network, nn.Module) else getattr(network, "__name__", "network")
    return f"{load.__module__}:load(name={re.sub(r'[^A-Za-z0-9_]', '_', name)[:_LONGEST]},digest=x{digest})"


def load(name: str, digest: str) -> Any:
    """Returns what the factory of this name returns.

    Raises:
        UserError: it is of another session: what was written down is gone with it.
    """
    import cloudpickle

    folder = os.environ.get(VARIABLE)
    path = Path(folder or "") / digest.removeprefix("x")
    if folder is None or not path.is_file():
        raise UserError(f"the network {name} was of a notebook and is gone with it; measure it there again")
    return cloudpickle.loads(path.read_bytes()).made()
