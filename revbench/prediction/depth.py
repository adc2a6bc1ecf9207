"""The same network, deeper."""

from __future__ import annotations

from revbench.case import Case
from revbench.errors import UserError
from revbench.prediction.fit import MARGIN, Fit, largest

DEPTHS = ("blocks", "depth", "layers")  # arguments of a factory that are taken to be its depth
_LONGEST = 40  # units, or what a factory counts, above which a prediction would take long and is extrapolated


def deepest(case: Case, limit_bytes: int) -> Fit:
    """Returns the deepest network of a kind whose training step fits, with the case's batch.

    A network of the catalogue grows as its family does: those for CIFAR in all groups alike, those for ImageNet in the
    third group, transformers in their blocks. A factory grows in the argument ``blocks``, ``depth`` or ``layers`` that its name
    gives. Where memory grows more slowly than depth, as under ``checkpointed``, one slightly deeper may fit too.

    Raises:
        UserError: a factory that names no such argument, and what `predict` raises.
    """
    return largest(case, lambda value: deeper(case, value), limit_bytes, MARGIN, start=8, longest=_LONGEST)


def deeper(case: Case, value: int) -> Case:
    """Returns the case whose network has this many units a group (ImageNet: in the third group) or blocks, or whose factory this
    depth."""
    factory = case.factory
    if factory is not None:
        named = [name for name in DEPTHS if isinstance(factory.arguments.get(name), int)]
        if len(named) != 1:
            raise UserError(
                f"model {case.model!r} does not say how deep it is; name one of {', '.join(DEPTHS)}:"
                " package.module:factory(blocks=9)"
            )
        return case.replace(model=str(factory.with_arguments(**{named[0]: value})))
    return case.replace(depth=value)


def depth_of(case: Case) -> str:
    """Returns how deep the network of such a case is, in words."""
    if case.network is not None:
        return case.network.layers
    arguments = case.factory.arguments if case.factory is not None else {}
    return ", ".join(f"{name} {arguments[name]}" for name in DEPTHS if name in arguments)
