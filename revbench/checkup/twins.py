"""The stored twin of a network: the same weights, back-propagated by plain autograd, where there is a switch for that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from revbench.backprop import StrategyModule
from revbench.factories import SetStrategy


class Switch(NamedTuple):
    """How modules of a package are told to keep their activations.

    Attributes:
        package: that a class is from, by its first name.
        attribute: of its modules.
        stored: its value that keeps them.
    """

    package: str
    attribute: str
    stored: Any


# As the packages' own documentation and code have them.
SWITCHES: Sequence[Switch] = (
    Switch("memcnn", "disable", True),
    Switch("torch_geometric", "disable", True),
    Switch("iunets", "disable_custom_gradient", True),
    Switch("momentumnet", "use_backprop", True),
    Switch("reformer_pytorch", "reverse_thres", math.inf),
)


def store(model: nn.Module, own_setter: SetStrategy | None = None) -> str | None:
    """Make a network its stored twin, in place.

    Args:
        model: the network.
        own_setter: its factory's ``set_strategy``.

    Returns:
        By what; None if there is no switch that is known.
    """
    if own_setter is not None:
        own_setter(model, "stored")
        return "its own set_strategy"
    found: dict[str, None] = {}
    for module in model.modules():
        if isinstance(module, StrategyModule):
            module.strategy = "stored"
            found["strategy = 'stored'"] = None
            continue
        packages = {kind.__module__.partition(".")[0] for kind in type(module).__mro__}
        for switch in SWITCHES:
            if switch.package in packages and hasattr(module, switch.attribute):
                setattr(module, switch.attribute, switch.stored)
                found[f"{switch.package}'s {switch.attribute}"] = None
    return ", ".join(found) or None
