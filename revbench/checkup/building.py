"""Networks that are built for a check: reconstructed, and deeper."""

from __future__ import annotations

import inspect

from revbench.backprop import StrategyModule
from revbench.case import Case
from revbench.errors import UserError
from revbench.factories import imported_factory
from revbench.workload import Workload, build_workload

_DEPTHS = ("depth", "blocks", "num_blocks", "n_blocks", "layers", "num_layers", "n_layers", "num_hidden_layers")


def deeper(case: Case, times: int, *, dtype: str, batch_size: int | None = None) -> Workload | None:
    """Returns a case's network so many times as deep, by default with as many items; None if nobody knows how to make one."""
    case = case.replace(dtype=dtype, batch_size=batch_size or case.batch_size)
    if case.factory is None:
        found = case.network
        assert found is not None
        return reconstructed(build_workload(case.replace(depth=max(found.depth) * times)))
    argument = _depth_of(case)
    if argument is None:
        return None
    name, depth = argument
    deep = case.replace(model=str(case.factory.with_arguments(**{name: depth * times})))
    return reconstructed(build_workload(deep))


def reconstructed(workload: Workload) -> Workload:
    """Returns it with what is reversible in it reconstructed, unless its case names another strategy than ``stored``."""
    if workload.case.strategy == "stored" and workload.own_setter is not None:
        workload.own_setter(workload.model, "reconstructed")
    elif workload.case.strategy == "stored":
        for module in workload.model.modules():
            if isinstance(module, StrategyModule) and "reconstructed" in module.strategies:
                module.strategy = "reconstructed"
    return workload


def _depth_of(case: Case) -> tuple[str, int] | None:
    """Returns the argument of a factory that says how deep its network is, and its value."""
    named = case.factory
    assert named is not None
    try:
        parameters = inspect.signature(imported_factory(case.model, named)).parameters
    except (TypeError, ValueError) as error:
        raise UserError(f"model {case.model!r} can't be looked at: {error}") from error
    for name in _DEPTHS:
        value = named.arguments.get(name, parameters[name].default if name in parameters else None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return name, value
    return None
